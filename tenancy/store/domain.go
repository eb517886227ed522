// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"crypto/rand"
	"slices"
	"strings"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// AddDomain makes a claim of a tenant to a name, which is normal already. Another tenant may
// have verified it: the zone may have changed hands. The error is Conflict with Code
// "domain_exists", or a tenancy.ExceededError beyond the quota domains.
func (s *Store) AddDomain(ctx context.Context, t *tenancy.TenantRecord, fqdn, source string) (*tenancy.Domain, error) {
	d, err := s.CheckDomain(ctx, t, fqdn, source)
	if err != nil {
		return nil, err
	}
	d.Revision, err = put(ctx, s.domains, d.Key(), d, bus.Absent)
	if errs.Is(err, errs.Conflict) {
		return nil, domainExists(t.ID, fqdn)
	}
	return d, err
}

func domainExists(tenant, fqdn string) error {
	return errs.Coded(errs.Conflict, "domain_exists", "the tenant %s has the domain %s already", tenant, fqdn)
}

// CheckDomain returns the domain that AddDomain would make, or its error.
func (s *Store) CheckDomain(ctx context.Context, t *tenancy.TenantRecord, fqdn, source string) (*tenancy.Domain, error) {
	limits, err := t.Limits()
	if err != nil {
		return nil, err
	}
	keys, err := s.domains.Keys(ctx, t.ID+".")
	if err != nil {
		return nil, err
	}
	if slices.Contains(keys, tenancy.DomainKey(t.ID, fqdn)) {
		return nil, domainExists(t.ID, fqdn)
	}
	most := limits.Domains
	if most < 0 {
		most = tenancy.MaxDomains
	}
	if n := int64(len(keys)); n >= most {
		return nil, &tenancy.ExceededError{Quota: "domains", Limit: most, Usage: n}
	}
	return &tenancy.Domain{
		Tenant: t.ID, FQDN: fqdn, State: tenancy.DomainPending, Token: strings.ToLower(rand.Text()), Source: source, CreatedAt: s.now().UTC(),
	}, nil
}

// CountDomains returns how many domains a tenant has.
func (s *Store) CountDomains(ctx context.Context, tenant string) (int64, error) {
	keys, err := s.domains.Keys(ctx, tenant+".")
	return int64(len(keys)), err
}

// Domain returns a domain of a tenant, or an error NotFound.
func (s *Store) Domain(ctx context.Context, tenant, fqdn string) (*tenancy.Domain, error) {
	e, err := s.domains.Get(ctx, tenancy.DomainKey(tenant, fqdn))
	if err != nil {
		return nil, named(err, "domain_not_found", "the tenant %s has no domain %q", tenant, fqdn)
	}
	return tenancy.DecodeDomain(e.Value, uint64(e.Revision))
}

// domainsListed is more than a tenant has.
const domainsListed = 10_000

// Domains returns at most limit of the tenant's domains whose names come after cursor,
// in order, and the cursor of the next page, empty at the end.
func (s *Store) Domains(ctx context.Context, tenant, cursor string, limit int) (page []*tenancy.Domain, next string, err error) {
	entries, _, err := bus.List(ctx, s.domains, tenant+".", domainsListed)
	if err != nil {
		return nil, "", err
	}
	for _, e := range entries {
		d, err := tenancy.DecodeDomain(e.Value, uint64(e.Revision))
		if err != nil {
			return nil, "", err
		}
		if d.FQDN > cursor {
			page = append(page, d)
		}
	}
	slices.SortFunc(page, func(a, b *tenancy.Domain) int { return strings.Compare(a.FQDN, b.FQDN) })
	if len(page) > limit {
		page = page[:limit]
		next = page[limit-1].FQDN
	}
	return page, next, nil
}

// ChangeDomain changes a domain: change gets the present one and may alter it, or return
// an error that ends the change. With ifRevision other than 0 it must be at that
// revision, else the error is Conflict with Code "revision_mismatch".
func (s *Store) ChangeDomain(ctx context.Context, tenant, fqdn string, ifRevision uint64, change func(*tenancy.Domain) error) (was, now *tenancy.Domain, err error) {
	for {
		d, err := s.Domain(ctx, tenant, fqdn)
		if err != nil {
			return nil, nil, err
		}
		if ifRevision != 0 && d.Revision != ifRevision {
			return nil, nil, errs.Coded(errs.Conflict, "revision_mismatch", "the domain is at revision %d, not %d", d.Revision, ifRevision)
		}
		old := *d
		if err := change(d); err != nil {
			return nil, nil, err
		}
		d.Revision, err = put(ctx, s.domains, d.Key(), d, bus.Revision(old.Revision))
		if errs.Is(err, errs.Conflict) {
			continue
		}
		return &old, d, err
	}
}

// RemoveDomain removes a domain, and releases its name; see RemoveCredential.
func (s *Store) RemoveDomain(ctx context.Context, tenant, fqdn string, ifRevision uint64) (*tenancy.Domain, error) {
	for {
		d, err := s.Domain(ctx, tenant, fqdn)
		if err != nil {
			return nil, err
		}
		if ifRevision != 0 && d.Revision != ifRevision {
			return nil, errs.Coded(errs.Conflict, "revision_mismatch", "the domain is at revision %d, not %d", d.Revision, ifRevision)
		}
		// The name first: while the domain is there, the deletion can be tried again.
		if err := s.ReleaseHost(ctx, tenant, fqdn); err != nil {
			return nil, err
		}
		err = s.domains.Delete(ctx, d.Key(), bus.Revision(d.Revision))
		if errs.Is(err, errs.Conflict) {
			continue
		}
		return d, err
	}
}

// WatchDomains calls f, one at a time, with every domain that is there and with every
// change, until ctx is done. A domain that is gone is told as nil.
func (s *Store) WatchDomains(ctx context.Context, f func(key string, d *tenancy.Domain)) error {
	return s.domains.Watch(ctx, bus.Watch{}, func(u bus.Update) {
		switch {
		case u.Synced:
		case u.Deleted:
			f(u.Entry.Key, nil)
		default:
			d, err := tenancy.DecodeDomain(u.Entry.Value, uint64(u.Entry.Revision))
			if err != nil {
				s.log.Error("a stored domain cannot be read", "domain", u.Entry.Key, "error", err)
				return
			}
			f(d.Key(), d)
		}
	})
}
