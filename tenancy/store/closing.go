// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"strings"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
)

// CheckClose returns the error with which CloseOrganization refuses an organization as it is:
// Conflict with Code "organization_has_tenants".
func (s *Store) CheckClose(ctx context.Context, o *Organization) error {
	for _, id := range o.Tenants {
		r, err := s.tenant(ctx, id)
		switch {
		case errs.Is(err, errs.NotFound) || err == nil && r.Organization != o.ID: // it was never made
		case err != nil:
			return err
		default:
			return errs.Coded(errs.Conflict, "organization_has_tenants", "the organization still has the tenant %s, which is %s: delete and purge its tenants first", id, r.State)
		}
	}
	return nil
}

// CloseOrganization removes an organization that has no tenants, with its members and API keys,
// and returns it as it was; see UpdateTenant for ifRevision, and CheckClose. It is closed first:
// from then on it gets no tenant, and who died in between leaves what a key that is left, or
// nobody, can use. Sign-ins and invitations end with their members.
func (s *Store) CloseOrganization(ctx context.Context, id string, ifRevision uint64) (*Organization, error) {
	was, now, err := s.ChangeOrganization(ctx, id, ifRevision, func(o *Organization) error {
		o.Closed = true
		return s.CheckClose(ctx, o)
	})
	if err != nil {
		return nil, err
	}
	members, err := s.members.Keys(ctx, id+".")
	if err != nil {
		return nil, err
	}
	var all error
	for _, key := range members {
		all = errors.Join(all, s.members.Delete(ctx, key, bus.Any))
	}
	keys, err := s.apiKeys.Keys(ctx, id+".")
	if err = errors.Join(all, err); err != nil {
		return nil, err
	}
	for _, key := range keys {
		name := strings.TrimPrefix(key, id+".")
		all = errors.Join(all, s.DeleteAPIKey(ctx, name))
		all = errors.Join(all, s.apiKeys.Delete(ctx, key, bus.Any)) // of one that was never made
	}
	if all != nil {
		return nil, all
	}
	return was, s.organizations.Delete(ctx, id, bus.Revision(now.Revision))
}

// open returns the error of an organization that is closed, as if it were not there.
func (o *Organization) open() error {
	if o.Closed {
		return errs.Coded(errs.NotFound, "organization_not_found", "there is no organization %q", o.ID)
	}
	return nil
}
