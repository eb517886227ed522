// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// claimTime is longer than it takes from the change of a host to that of its domain.
const claimTime = time.Minute

func domainTaken(fqdn string) error {
	return errs.Coded(errs.Conflict, "domain_taken", "another tenant has verified %s; it has to delete that domain first", fqdn)
}

// Host returns who has verified a name, or an error NotFound.
func (s *Store) Host(ctx context.Context, fqdn string) (*tenancy.Host, error) {
	e, err := s.hosts.Get(ctx, tenancy.HostKey(fqdn))
	if err != nil {
		return nil, named(err, "host_not_found", "nobody has verified %q", fqdn)
	}
	return tenancy.DecodeHost(e.Value, uint64(e.Revision))
}

// ClaimHost gives a name to the tenant that has verified it. Of several who try, one gets
// it; the error for the others is Conflict with Code "domain_taken". A host whose tenant
// has no domain of that name, or one that is pending, is taken over after a minute.
func (s *Store) ClaimHost(ctx context.Context, tenant, fqdn string) error {
	for {
		_, err := put(ctx, s.hosts, tenancy.HostKey(fqdn), &tenancy.Host{FQDN: fqdn, Tenant: tenant, ClaimedAt: s.now().UTC()}, bus.Absent)
		if !errs.Is(err, errs.Conflict) {
			return err
		}
		switch h, err := s.Host(ctx, fqdn); {
		case errs.Is(err, errs.NotFound): // released just now
		case err != nil:
			return err
		case h.Tenant == tenant:
			return nil
		default:
			holds, err := s.holds(ctx, h)
			if err != nil {
				return err
			}
			if holds {
				return domainTaken(fqdn)
			}
			if err = s.TakeHost(ctx, h, tenant); !errs.Is(err, errs.Conflict) {
				return err
			}
		}
	}
}

// holds reports whether the tenant of a host has a domain that it has verified. It has
// none if a process ended between the change of one record and that of the other.
// Who got the name just now may be between the two.
func (s *Store) holds(ctx context.Context, h *tenancy.Host) (bool, error) {
	if s.now().Sub(h.ClaimedAt) < claimTime {
		return true, nil
	}
	d, err := s.Domain(ctx, h.Tenant, h.FQDN)
	if errs.Is(err, errs.NotFound) {
		return false, nil
	}
	return err == nil && d.Owned(), err
}

// TakeHost gives a name from one tenant to another, without what is served under it. The
// error is Conflict if the host has changed since it was read.
func (s *Store) TakeHost(ctx context.Context, from *tenancy.Host, tenant string) error {
	_, err := put(ctx, s.hosts, tenancy.HostKey(from.FQDN), &tenancy.Host{FQDN: from.FQDN, Tenant: tenant, ClaimedAt: s.now().UTC()}, bus.Revision(from.Revision))
	return err
}

// ChangeHost changes what gateways show of a tenant's name. The error is NotFound if the
// name is not, or no longer, the tenant's.
func (s *Store) ChangeHost(ctx context.Context, tenant, fqdn string, change func(*tenancy.Host)) error {
	for {
		h, err := s.Host(ctx, fqdn)
		if err == nil && h.Tenant != tenant {
			err = errs.Coded(errs.NotFound, "host_not_found", "%s is not the tenant %s's", fqdn, tenant)
		}
		if err != nil {
			return err
		}
		change(h)
		if _, err = put(ctx, s.hosts, tenancy.HostKey(fqdn), h, bus.Revision(h.Revision)); !errs.Is(err, errs.Conflict) {
			return err
		}
	}
}

// ReleaseHost takes a name from a tenant, if it has it: gateways refuse handshakes that
// name it, and others may verify it.
func (s *Store) ReleaseHost(ctx context.Context, tenant, fqdn string) error {
	for {
		h, err := s.Host(ctx, fqdn)
		switch {
		case errs.Is(err, errs.NotFound) || err == nil && h.Tenant != tenant:
			return nil
		case err != nil:
			return err
		}
		err = s.hosts.Delete(ctx, tenancy.HostKey(fqdn), bus.Revision(h.Revision))
		if !errs.Is(err, errs.Conflict) && !errs.Is(err, errs.NotFound) {
			return err
		}
	}
}
