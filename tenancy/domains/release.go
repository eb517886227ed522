// SPDX-License-Identifier: Apache-2.0

package domains

import (
	"context"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
)

// Holder returns the tenant that has a name, written in any way, and the name as it is
// stored, or an error NotFound.
func (s *Service) Holder(ctx context.Context, name string) (tenant, fqdn string, err error) {
	if fqdn, err = Normalize(name, s.cfg.Domain); err != nil {
		return "", "", err
	}
	h, err := s.store.Host(ctx, fqdn)
	if errs.Is(err, errs.NotFound) {
		return "", "", errs.Coded(errs.NotFound, "domain_not_found", "no tenant has the name %s: it is free, or only claimed", fqdn)
	}
	if err != nil {
		return "", "", err
	}
	return h.Tenant, fqdn, nil
}

// Release takes a name from the tenant that has it, whatever the DNS says: gateways refuse new
// handshakes for it within 2 s, its certificate is forgotten, and the domain is pending. Whoever shows by the DNS
// that the name is theirs has it next.
func (s *Service) Release(ctx context.Context, tenant, fqdn string) error {
	d, err := s.store.Domain(ctx, tenant, fqdn)
	if errs.Is(err, errs.NotFound) { // deleted, but for the name
		return s.store.ReleaseHost(ctx, tenant, fqdn)
	}
	if err != nil {
		return err
	}
	err = s.release(ctx, d, errs.New(errs.Denied, "the operator of this installation has released the name; verify the domain again if it is yours"))
	if errs.Is(err, errs.NotFound) { // deleted, or pending, meanwhile
		return nil
	}
	return err
}

// Purge removes all domains of a tenant that is purged, with their certificates and what is
// counted of its orders, and returns how many domains. It may be called again after an error.
func (s *Service) Purge(ctx context.Context, tenant string) (n int64, err error) {
	for {
		page, _, err := s.store.Domains(ctx, tenant, "", purgePage)
		if err != nil {
			return n, err
		}
		if len(page) == 0 {
			break
		}
		for _, d := range page {
			if _, err := s.Delete(ctx, tenant, d.FQDN, 0); err != nil && !errs.Is(err, errs.NotFound) {
				return n, err
			}
			n++
		}
	}
	err = s.orders.bucket.Delete(ctx, orderKey(tenant), bus.Any)
	if errs.Is(err, errs.NotFound) {
		err = nil
	}
	return n, err
}

// purgePage is how many domains are removed between two looks.
const purgePage = 100
