// SPDX-License-Identifier: Apache-2.0

package domains

import (
	"context"
	"errors"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// work issues, renews or ends the certificate of a domain whose time has come, and leaves
// in d what is then. Its caller has the domain's lock.
func (s *Service) work(ctx context.Context, d *tenancy.Domain) error {
	if s.now().Sub(d.VerifiedAt) >= freshFor {
		if err := s.owns(ctx, d); err != nil {
			if errs.Is(err, errs.Denied) && s.ended(d) {
				return s.release(ctx, d, err)
			}
			return s.failed(ctx, d, err)
		}
		if err := s.change(ctx, d, s.verified); err != nil {
			return err
		}
	}
	if d.Source == tenancy.CertificateUploaded {
		return s.failed(ctx, d, errs.New(errs.Invalid, "the certificate has ended: upload another one"))
	}
	if s.cfg.Authority == nil {
		return s.failed(ctx, d, errs.New(errs.Unavailable, "this installation gets no certificates any more: its operator has to set domains.acme.enabled"))
	}
	chain, key, err := s.cfg.Authority.Obtain(ctx, d.FQDN)
	var p *pair
	if err == nil {
		p, err = parsePair(d.FQDN, chain, key, s.now())
	}
	if err != nil {
		if ctx.Err() != nil { // this process ends; another one goes on
			return err
		}
		return s.failed(ctx, d, err)
	}
	if err := s.publish(ctx, d, p); err != nil {
		if errs.Is(err, errs.NotFound) { // deleted meanwhile
			return errors.Join(err, s.cfg.Authority.Forget(ctx, d.FQDN))
		}
		return err
	}
	if err := s.change(ctx, d, func(d *tenancy.Domain) { served(d, p) }); err != nil {
		return err
	}
	s.metrics.certificates.WithLabelValues(tenancy.CertificateACME, "issued").Inc()
	s.log.Info("the certificate of a custom domain was issued", "tenant", d.Tenant, "domain", d.FQDN, "until", d.NotAfter, "renewed_at", d.NextRenewal)
	return nil
}

// ended reports whether nothing is served under the name that is any good.
func (s *Service) ended(d *tenancy.Domain) bool {
	return d.NotAfter.IsZero() || !s.now().Before(d.NotAfter)
}

// change changes a domain, and d with it.
func (s *Service) change(ctx context.Context, d *tenancy.Domain, f func(*tenancy.Domain)) error {
	_, now, err := s.store.ChangeDomain(ctx, d.Tenant, d.FQDN, 0, func(d *tenancy.Domain) error {
		f(d)
		return nil
	})
	if err == nil {
		*d = *now
	}
	return err
}

// failed notes that it did not go well, and when it is tried again. What is served stays.
func (s *Service) failed(ctx context.Context, d *tenancy.Domain, why error) error {
	err := s.change(ctx, d, func(d *tenancy.Domain) {
		d.State, d.LastError = tenancy.DomainFailed, why.Error()
		d.Failures++
		d.NextRenewal = s.now().Add(wait(d.Failures)).UTC()
	})
	if err != nil {
		return err
	}
	s.metrics.certificates.WithLabelValues(d.Source, "failed").Inc()
	s.log.Warn("a custom domain has no new certificate", "tenant", d.Tenant, "domain", d.FQDN, "error", why, "until", d.NotAfter, "failures", d.Failures, "retry_at", d.NextRenewal)
	return nil
}

// release takes from a tenant a name that the DNS says is not its own any more, and of
// which nothing good is served: the domain is pending again, and others may have it.
func (s *Service) release(ctx context.Context, d *tenancy.Domain, why error) error {
	// The name first: as long as the domain is not pending, this is tried again.
	if err := s.store.ReleaseHost(ctx, d.Tenant, d.FQDN); err != nil {
		return err
	}
	err := s.change(ctx, d, func(d *tenancy.Domain) {
		d.State, d.LastError = tenancy.DomainPending, why.Error()
		d.Failures, d.NextRenewal, d.NotAfter, d.Issuer = 0, time.Time{}, time.Time{}, ""
	})
	if err != nil {
		return err
	}
	s.log.Warn("a custom domain is not its tenant's any more", "tenant", d.Tenant, "domain", d.FQDN, "error", why)
	return nil
}
