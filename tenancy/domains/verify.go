// SPDX-License-Identifier: Apache-2.0

package domains

import (
	"context"
	"errors"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// verifyEvery is how often a tenant may have the DNS asked about one name.
const verifyEvery = 2 * time.Second

// Verify asks the DNS whether a name is the tenant's, gives it to the tenant if so, and
// has its certificate issued, soon, if that is from a CA. A domain that is verified
// already is verified again and stays what it is, if the record is still there. The error
// is Conflict with Code "domain_unverified" or "domain_taken", Unavailable if the DNS does
// not answer, or a tenancy.ExceededError with RetryAfter. Each but the last is remembered
// as LastError.
func (s *Service) Verify(ctx context.Context, tenant, fqdn string, ifRevision uint64) (was, now *tenancy.Domain, err error) {
	was, d, err := s.store.ChangeDomain(ctx, tenant, fqdn, ifRevision, func(d *tenancy.Domain) error {
		at := s.now().UTC()
		if wait := verifyEvery - at.Sub(d.CheckedAt); wait > 0 {
			return &tenancy.ExceededError{Quota: "domain_verifications", Limit: 1, Usage: 1, RetryAfter: seconds(wait)}
		}
		d.CheckedAt = at
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	says := s.owns(ctx, tenant, d)
	if noTurn(says) {
		return nil, nil, says
	}
	// The host and the domain are two records: who asks may go, but not between them.
	noting, cancel := context.WithTimeout(context.WithoutCancel(ctx), changeTime)
	defer cancel()
	why := conflicting(says)
	if why == nil {
		if why = s.store.ClaimHost(noting, tenant, fqdn); errs.CodeOf(why) == "domain_taken" {
			why = s.takeOver(ctx, noting, d)
		}
	}
	began := d.Token
	_, now, err = s.store.ChangeDomain(noting, tenant, fqdn, 0, func(d *tenancy.Domain) error {
		switch {
		case d.Token != began:
			return errs.Coded(errs.NotFound, "domain_not_found", "the domain %s was deleted, and made again, meanwhile", fqdn)
		case why == nil:
			s.verified(d)
			return nil
		}
		d.LastError = why.Error()
		if d.Owned() && says != nil {
			d.Unseen = true
			if errs.Is(says, errs.Denied) {
				s.unseen(d)
				if at := s.now().Add(absentAgain).UTC(); at.Before(d.NextRenewal) {
					d.NextRenewal = at
				}
			}
		}
		return nil
	})
	switch {
	case why != nil:
		return nil, nil, why
	case errs.Is(err, errs.NotFound): // deleted meanwhile
		return nil, nil, errors.Join(err, s.store.ReleaseHost(noting, tenant, fqdn))
	case err != nil:
		return nil, nil, err
	}
	// Another tenant may have taken the name while the domain was still pending.
	if h, err := s.store.Host(noting, fqdn); err == nil && h.Tenant != tenant {
		return nil, nil, errors.Join(taken(fqdn), s.lost(noting, now, taken(fqdn)))
	}
	return was, now, nil
}

// conflicting is what the DNS says as who asks is told.
func conflicting(err error) error {
	if errs.Is(err, errs.Denied) {
		return errs.Coded(errs.Conflict, errs.CodeOf(err), "%w; make it and ask again, which may take until the DNS has forgotten that there was none", err)
	}
	return err
}

// verified notes that a domain is its tenant's.
func (s *Service) verified(d *tenancy.Domain) {
	at := s.now().UTC()
	d.VerifiedAt, d.AbsentSince = at, time.Time{}
	if d.State != tenancy.DomainPending {
		if d.Unseen {
			// What failed was this.
			d.LastError, d.Failures, d.Unseen = "", 0, false
			if d.State == tenancy.DomainFailed {
				d.NextRenewal = at
			}
		}
		return
	}
	d.State, d.LastError, d.Failures, d.Unseen = tenancy.DomainVerified, "", 0, false
	d.NextRenewal = at
	if d.Source == tenancy.CertificateUploaded {
		d.NextRenewal = s.lookAgain(d)
	}
}
