// SPDX-License-Identifier: Apache-2.0

package domains

import (
	"context"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// When a name is taken from a tenant.
const (
	// lostAfter is for how long the record has to be absent, at every look that the
	// DNS answered, until the name is free, whatever is served.
	lostAfter = 14 * 24 * time.Hour
	// takenAfter is the same if another tenant's record is there instead.
	takenAfter = 24 * time.Hour
	// absentAgain is when a domain is looked at again whose record somebody found
	// absent.
	absentAgain = time.Hour
	// lookAgainEvery is how often a domain is verified whose certificate is uploaded.
	lookAgainEvery = 30 * 24 * time.Hour
	// changeTime bounds changes that go on when who asked for them has gone.
	changeTime = 30 * time.Second
	// sweepEvery is how often it is looked for certificates of names that nobody has.
	sweepEvery = time.Hour
)

func taken(fqdn string) error {
	return errs.Coded(errs.Conflict, "domain_taken", "another tenant has verified %s", fqdn)
}

// unseen notes that the DNS says that the record is not there.
func (s *Service) unseen(d *tenancy.Domain) {
	d.Unseen = true
	if d.AbsentSince.IsZero() {
		d.AbsentSince = s.now().UTC()
	}
}

// absent sees to a domain whose record is not there.
func (s *Service) absent(ctx context.Context, d *tenancy.Domain, why error) error {
	if s.ended(d) || !d.AbsentSince.IsZero() && s.now().Sub(d.AbsentSince) >= lostAfter {
		return s.release(ctx, d, why)
	}
	return s.failed(ctx, d, why, s.unseen)
}

// release takes from a tenant a name that the DNS says is not its own any more: the domain
// is pending again, and others may have it.
func (s *Service) release(ctx context.Context, d *tenancy.Domain, why error) error {
	// The name first: as long as the domain is not pending, this is tried again.
	if err := s.store.ReleaseHost(ctx, d.Tenant, d.FQDN); err != nil {
		return err
	}
	s.forget(ctx, d.Tenant, d.FQDN)
	return s.lost(ctx, d, why)
}

// lost has a domain be pending whose name is free, or another tenant's.
func (s *Service) lost(ctx context.Context, d *tenancy.Domain, why error) error {
	verified, again := d.VerifiedAt, false
	err := s.change(ctx, d, func(d *tenancy.Domain) {
		if again = d.VerifiedAt.After(verified); again {
			// Verified meanwhile: whether it has the name is seen then.
			d.NextRenewal = s.now().UTC()
			return
		}
		pending(d, why)
	})
	if err == nil && !again {
		s.log.Warn("a custom domain is not its tenant's any more", "tenant", d.Tenant, "domain", d.FQDN, "error", why)
	}
	return err
}

// pending has a domain be as one that was never verified.
func pending(d *tenancy.Domain, why error) {
	d.State, d.LastError, d.Failures, d.Asked, d.Unseen = tenancy.DomainPending, why.Error(), 0, false, false
	d.NextRenewal, d.NotAfter, d.Issuer, d.AbsentSince = time.Time{}, time.Time{}, "", time.Time{}
}

// takeOver gives a verified name to another tenant that has shown it too, if its holder's
// record is gone: then the zone has changed hands. Else the error says why not. The DNS is
// asked until ctx is done, and what it says is noted until noting is.
func (s *Service) takeOver(ctx, noting context.Context, d *tenancy.Domain) error {
	h, err := s.store.Host(noting, d.FQDN)
	switch {
	case errs.Is(err, errs.NotFound) || err == nil && h.Tenant == d.Tenant: // just now
		return s.store.ClaimHost(noting, d.Tenant, d.FQDN)
	case err != nil:
		return err
	}
	holder, err := s.store.Domain(noting, h.Tenant, d.FQDN)
	if errs.Is(err, errs.NotFound) { // made just now, or free in a minute
		return taken(d.FQDN)
	}
	if err != nil {
		return err
	}
	says := s.owns(ctx, d.Tenant, holder)
	if says != nil && !errs.Is(says, errs.Denied) {
		return taken(d.FQDN)
	}
	since := holder.AbsentSince
	if says != nil && !since.IsZero() && s.now().Sub(since) >= takenAfter {
		if err := s.store.TakeHost(noting, h, d.Tenant); err != nil {
			return err
		}
		s.forget(noting, d.Tenant, d.FQDN)
		if err := s.lost(noting, holder, taken(d.FQDN)); err != nil && !errs.Is(err, errs.NotFound) {
			// It has no host: what is done next for it says so too.
			s.log.Warn("a custom domain that is another tenant's now is still verified", "tenant", holder.Tenant, "domain", d.FQDN, "error", err)
		}
		return nil
	}
	err = s.change(noting, holder, func(x *tenancy.Domain) {
		if says == nil {
			x.AbsentSince = time.Time{}
			return
		}
		s.unseen(x)
		since = x.AbsentSince
		if at := s.now().Add(absentAgain).UTC(); x.NextRenewal.IsZero() || at.Before(x.NextRenewal) {
			x.NextRenewal = at
		}
	})
	if err != nil || says == nil {
		return taken(d.FQDN)
	}
	return errs.Coded(errs.Conflict, "domain_taken", "another tenant has verified %s, but its record is gone: if that is still so after %s, verify again then to have the name",
		d.FQDN, since.Add(takenAfter).Format(time.RFC3339))
}

// forget removes what the CA's client keeps for a name, unless another tenant has it. What
// stays because that fails is swept later.
func (s *Service) forget(ctx context.Context, tenant, fqdn string) {
	if s.cfg.Authority == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), changeTime)
	defer cancel()
	h, err := s.store.Host(ctx, fqdn)
	switch {
	case err == nil && h.Tenant != tenant:
		return
	case err == nil || errs.Is(err, errs.NotFound):
		err = s.cfg.Authority.Forget(ctx, fqdn)
	}
	if err != nil {
		s.log.Warn("the certificate of a domain is still kept", "domain", fqdn, "error", err, "retry_in", sweepEvery)
	}
}

// sweep removes what is kept for names that nobody has, now and then until ctx is done.
func (s *Service) sweep(ctx context.Context) {
	for s.cfg.Authority != nil {
		sleep(ctx, sweepEvery)
		if ctx.Err() != nil {
			return
		}
		if err := s.sweepOnce(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("certificates of names that nobody has may still be kept", "error", err, "retry_in", sweepEvery)
		}
	}
}

func (s *Service) sweepOnce(ctx context.Context) error {
	names, err := s.cfg.Authority.Names(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		// An order begins when the host is there, and forgets by itself when it is not
		// any more at the end.
		if _, err := s.store.Host(ctx, name); !errs.Is(err, errs.NotFound) {
			if err != nil {
				return err
			}
			continue
		}
		if err := s.cfg.Authority.Forget(ctx, name); err != nil {
			return err
		}
	}
	return nil
}
