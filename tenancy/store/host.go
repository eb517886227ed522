// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

func domainTaken(fqdn string) error {
	return errs.Coded(errs.Conflict, "domain_taken", "another tenant has verified %s; it has to delete that domain first", fqdn)
}

// Host returns who has verified a name, or an error NotFound.
func (s *Store) Host(ctx context.Context, fqdn string) (*tenancy.Host, error) {
	e, err := s.hosts.Get(ctx, fqdn)
	if err != nil {
		return nil, named(err, "host_not_found", "nobody has verified %q", fqdn)
	}
	return tenancy.DecodeHost(e.Value, uint64(e.Revision))
}

// ClaimHost gives a name to the tenant that has verified it. Of several who try, one gets
// it; the error for the others is Conflict with Code "domain_taken".
func (s *Store) ClaimHost(ctx context.Context, tenant, fqdn string) error {
	for {
		_, err := put(ctx, s.hosts, fqdn, &tenancy.Host{FQDN: fqdn, Tenant: tenant}, bus.Absent)
		if !errs.Is(err, errs.Conflict) {
			return err
		}
		switch h, err := s.Host(ctx, fqdn); {
		case errs.Is(err, errs.NotFound): // released just now
		case err != nil:
			return err
		case h.Tenant != tenant:
			return domainTaken(fqdn)
		default:
			return nil
		}
	}
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
		if _, err = put(ctx, s.hosts, fqdn, h, bus.Revision(h.Revision)); !errs.Is(err, errs.Conflict) {
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
		err = s.hosts.Delete(ctx, fqdn, bus.Revision(h.Revision))
		if !errs.Is(err, errs.Conflict) && !errs.Is(err, errs.NotFound) {
			return err
		}
	}
}
