// SPDX-License-Identifier: Apache-2.0

package domains

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/domains/acme"
)

// work issues, renews or ends the certificate of a domain whose time has come, and leaves
// in d what is then. Its caller has the tenant's lock.
func (s *Service) work(ctx context.Context, d *tenancy.Domain) error {
	h, err := s.store.Host(ctx, d.FQDN)
	switch {
	case errs.Is(err, errs.NotFound):
		h = nil
	case err != nil:
		return err
	case h.Tenant != d.Tenant:
		return s.lost(ctx, d, taken(d.FQDN))
	}
	if leaf := leafOf(h); s.onlySuggestion(d, leaf) {
		renewal := s.suggested(ctx, d.Renewal, leaf)
		return s.change(ctx, d, func(d *tenancy.Domain) {
			d.Renewal, d.NextRenewal = renewal, nextLook(&tenancy.Domain{Renewal: renewal}, leaf)
		})
	}
	if h == nil || !d.AbsentSince.IsZero() || s.now().Sub(d.VerifiedAt) >= freshFor {
		if done, err := s.verifyAgain(ctx, d, h == nil); done || err != nil {
			return err
		}
	}
	if d.Source == tenancy.CertificateUploaded {
		return s.follow(ctx, d)
	}
	return s.renew(ctx, d, leafOf(h))
}

// verifyAgain asks the DNS whether a domain is still its tenant's, and says whether there
// is no more to do. claim has it get the name again, which it lost between two records.
func (s *Service) verifyAgain(ctx context.Context, d *tenancy.Domain, claim bool) (done bool, err error) {
	switch err := s.stillOwns(ctx, d); {
	case err == nil:
	case noTurn(err) || ctx.Err() != nil: // it is tried again in a moment, or by another process
		return true, err
	case errs.Is(err, errs.Denied):
		return true, s.absent(ctx, d, err)
	case d.Source == tenancy.CertificateUploaded && !s.ended(d):
		return true, s.postponed(ctx, d, s.now().Add(wait(d.Failures+1)), err)
	default:
		return true, s.failed(ctx, d, err, func(d *tenancy.Domain) { d.Unseen = true })
	}
	if claim {
		switch err := s.store.ClaimHost(ctx, d.Tenant, d.FQDN); {
		case errs.Is(err, errs.Conflict):
			return true, s.lost(ctx, d, err)
		case err != nil:
			return true, err
		}
	}
	err = s.change(ctx, d, s.verified)
	if claim && errs.Is(err, errs.NotFound) { // deleted meanwhile
		err = errors.Join(err, s.store.ReleaseHost(ctx, d.Tenant, d.FQDN))
	}
	return false, err
}

// follow sees to a domain whose certificate is uploaded, and whose name is the tenant's.
func (s *Service) follow(ctx context.Context, d *tenancy.Domain) error {
	why := errs.New(errs.Invalid, "the certificate has ended: upload another one")
	over := false
	err := s.change(ctx, d, func(d *tenancy.Domain) {
		// As it is now: one may have been uploaded meanwhile.
		if over = !d.NotAfter.IsZero() && s.ended(d); over {
			s.fail(d, why)
			return
		}
		d.State, d.LastError, d.Failures, d.NextRenewal = tenancy.DomainActive, "", 0, s.lookAgain(d)
		if d.NotAfter.IsZero() {
			d.State = tenancy.DomainVerified
		}
	})
	if err == nil && over {
		s.tellFailed(d, why)
	}
	return err
}

// renew gets a certificate from the CA, if it is time for that.
func (s *Service) renew(ctx context.Context, d *tenancy.Domain, shown *x509.Certificate) error {
	if !d.Asked && shown != nil && s.now().Before(renewalDue(d, shown)) {
		// The domain was looked at for another reason.
		return s.change(ctx, d, func(d *tenancy.Domain) { s.served(d, shown) })
	}
	if s.cfg.Authority == nil {
		return s.failed(ctx, d, errs.New(errs.Unavailable, "this installation gets no certificates any more: its operator has to set domains.acme.enabled"), nil)
	}
	p := s.kept(ctx, d)
	if p == nil {
		until, why, err := s.orders.take(ctx, d.Tenant, !d.Asked && shown != nil)
		if err != nil {
			return err
		}
		if why != nil {
			return s.postponed(ctx, d, until, why)
		}
		chain, key, err := s.cfg.Authority.Obtain(ctx, d.FQDN)
		if err == nil {
			p, err = parsePair(d.FQDN, chain, key, s.now())
		}
		if err != nil {
			return s.refused(ctx, d, err)
		}
	}
	// An order takes a while: another domain may be there by now, with a certificate from
	// elsewhere.
	err := s.still(ctx, d)
	if err == nil {
		err = s.publish(ctx, d, p)
	}
	if err != nil {
		if errs.Is(err, errs.NotFound) { // deleted meanwhile
			s.forget(ctx, d.Tenant, d.FQDN)
		}
		return err
	}
	renewal := s.suggested(ctx, tenancy.Renewal{}, p.leaf)
	err = s.change(ctx, d, func(d *tenancy.Domain) {
		d.Renewal = renewal
		s.served(d, p.leaf)
	})
	if err != nil {
		return err
	}
	s.metrics.certificates.WithLabelValues(tenancy.CertificateACME, "issued").Inc()
	s.log.Info("the certificate of a custom domain was issued", "tenant", d.Tenant, "domain", d.FQDN, "until", d.NotAfter, "renewed_at", d.NextRenewal)
	return nil
}

// kept is what an order got of which the domain does not know: the bus was away when it
// was to be noted. Without any it is nil.
func (s *Service) kept(ctx context.Context, d *tenancy.Domain) *pair {
	chain, key, err := s.cfg.Authority.Stored(ctx, d.FQDN)
	if err != nil {
		return nil
	}
	p, err := parsePair(d.FQDN, chain, key, s.now())
	if err != nil || !p.leaf.NotAfter.After(d.NotAfter) || !s.now().Before(renewAt(p.leaf)) {
		return nil
	}
	return p
}

// refused notes what the CA says instead of a certificate.
func (s *Service) refused(ctx context.Context, d *tenancy.Domain, why error) error {
	if ctx.Err() != nil { // this process ends; another one goes on
		return why
	}
	limited, ok := errors.AsType[*acme.LimitedError](why)
	switch {
	case !ok:
		return s.failed(ctx, d, why, nil)
	case limited.Name:
		// Of one name: others' orders go on, or one tenant could hold up all.
		return s.failed(ctx, d, why, func(d *tenancy.Domain) {
			if at := s.now().Add(limited.RetryAfter).UTC(); at.After(d.NextRenewal) {
				d.NextRenewal = at
			}
		})
	}
	until, err := s.orders.pause(ctx, limited.RetryAfter)
	if err != nil {
		return err
	}
	s.log.Warn("the certificate authority takes no orders: none is made for a while", "error", why, "until", until)
	return s.postponed(ctx, d, until, why)
}

// leafOf is the certificate that gateways show; nil for none.
func leafOf(h *tenancy.Host) *x509.Certificate {
	if h == nil {
		return nil
	}
	block, _ := pem.Decode([]byte(h.Certificates))
	if block == nil {
		return nil
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil
	}
	return leaf
}

// ended reports whether nothing is served under the name that is any good.
func (s *Service) ended(d *tenancy.Domain) bool {
	return d.NotAfter.IsZero() || !s.now().Before(d.NotAfter)
}

// lookAgain is when a domain with an uploaded certificate is verified again.
func (s *Service) lookAgain(d *tenancy.Domain) time.Time {
	at := s.now().Add(lookAgainEvery).UTC()
	if !d.NotAfter.IsZero() && d.NotAfter.Before(at) {
		at = d.NotAfter
	}
	return at
}

// still returns an error NotFound if a domain is not the one that d was read of any more.
func (s *Service) still(ctx context.Context, d *tenancy.Domain) error {
	x, err := s.store.Domain(ctx, d.Tenant, d.FQDN)
	if err == nil {
		err = same(d, x)
	}
	return err
}

func same(d, x *tenancy.Domain) error {
	if x.Token != d.Token || !x.Owned() {
		return errs.New(errs.NotFound, "the domain %s was made anew, or lost, meanwhile", d.FQDN)
	}
	return nil
}

// change changes a domain, and d with it. The error is NotFound if the domain is not the
// one that d was read of, or not its tenant's, any more.
func (s *Service) change(ctx context.Context, d *tenancy.Domain, f func(*tenancy.Domain)) error {
	_, now, err := s.store.ChangeDomain(ctx, d.Tenant, d.FQDN, 0, func(x *tenancy.Domain) error {
		if err := same(d, x); err != nil {
			return err
		}
		f(x)
		return nil
	})
	if err == nil {
		*d = *now
	}
	return err
}

// fail has a domain have failed once more.
func (s *Service) fail(d *tenancy.Domain, why error) {
	d.State, d.LastError, d.Unseen = tenancy.DomainFailed, why.Error(), false
	d.Failures++
	d.NextRenewal = s.now().Add(wait(d.Failures)).UTC()
}

// failed notes that it did not go well, and when it is tried again. What is served stays.
// also may be nil.
func (s *Service) failed(ctx context.Context, d *tenancy.Domain, why error, also func(*tenancy.Domain)) error {
	err := s.change(ctx, d, func(d *tenancy.Domain) {
		s.fail(d, why)
		if also != nil {
			also(d)
		}
	})
	if err == nil {
		s.tellFailed(d, why)
	}
	return err
}

func (s *Service) tellFailed(d *tenancy.Domain, why error) {
	s.metrics.certificates.WithLabelValues(d.Source, "failed").Inc()
	s.log.Warn("a custom domain has no new certificate", "tenant", d.Tenant, "domain", d.FQDN, "error", why, "until", d.NotAfter, "failures", d.Failures, "retry_at", d.NextRenewal)
}

// postponed notes that something is done later, which is no failure of the domain's.
func (s *Service) postponed(ctx context.Context, d *tenancy.Domain, until time.Time, why error) error {
	return s.change(ctx, d, func(d *tenancy.Domain) {
		d.LastError, d.NextRenewal = why.Error(), until.UTC()
		if d.Source == tenancy.CertificateUploaded {
			d.Unseen = true
			d.Failures++
		}
	})
}
