// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// TokenKeys returns what was fetched of an issuer's keys, and the revision of that. The
// error is NotFound if nobody has tried yet.
func (s *Store) TokenKeys(ctx context.Context, tenant, address string) (*tenancy.KeySet, bus.Revision, error) {
	e, err := s.tokenKeys.Get(ctx, tenancy.KeySetKey(tenant, address))
	if err != nil {
		return nil, 0, named(err, "token_keys_not_found", "the keys at %q were not fetched yet", address)
	}
	k, err := tenancy.DecodeKeySet(e.Value)
	return k, e.Revision, err
}

// PutTokenKeys keeps what was fetched, which gateways then read. The error is Conflict
// if somebody else was faster.
func (s *Store) PutTokenKeys(ctx context.Context, k *tenancy.KeySet, at bus.Revision) error {
	_, err := put(ctx, s.tokenKeys, tenancy.KeySetKey(k.Tenant, k.URL), k, at)
	return err
}

// DropTokenKeys removes those of the tenant whose addresses are not among keep.
func (s *Store) DropTokenKeys(ctx context.Context, tenant string, keep []string) error {
	wanted := map[string]bool{}
	for _, address := range keep {
		wanted[tenancy.KeySetKey(tenant, address)] = true
	}
	keys, err := s.tokenKeys.Keys(ctx, tenant+".")
	if err != nil {
		return err
	}
	for _, key := range keys {
		if wanted[key] {
			continue
		}
		if err := s.tokenKeys.Delete(ctx, key, bus.Any); err != nil && !errs.Is(err, errs.NotFound) {
			return err
		}
	}
	return nil
}

// WatchTenants calls f, one at a time, with every tenant that is there and with every
// change, until ctx is done. A tenant that is gone is told as nil.
func (s *Store) WatchTenants(ctx context.Context, f func(id string, t *tenancy.TenantRecord)) error {
	return s.tenants.Watch(ctx, bus.Watch{}, func(u bus.Update) {
		switch {
		case u.Synced:
		case u.Deleted:
			f(u.Entry.Key, nil)
		default:
			t, err := tenancy.DecodeTenant(u.Entry.Value, uint64(u.Entry.Revision))
			if err != nil {
				s.log.Error("a stored tenant cannot be read", "tenant", u.Entry.Key, "error", err)
				return
			}
			f(t.ID, t)
		}
	})
}
