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
	why := conflicting(s.owns(ctx, d))
	if why == nil {
		why = s.store.ClaimHost(ctx, tenant, fqdn)
	}
	_, now, err = s.store.ChangeDomain(ctx, tenant, fqdn, 0, func(d *tenancy.Domain) error {
		if why != nil {
			d.LastError = why.Error()
			return nil
		}
		s.verified(d)
		return nil
	})
	switch {
	case why != nil:
		return nil, nil, why
	case errs.Is(err, errs.NotFound): // deleted meanwhile
		return nil, nil, errors.Join(err, s.store.ReleaseHost(ctx, tenant, fqdn))
	case err != nil:
		return nil, nil, err
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
	d.VerifiedAt = at
	if d.State != tenancy.DomainPending {
		return
	}
	d.State, d.LastError, d.Failures = tenancy.DomainVerified, "", 0
	if d.Source == tenancy.CertificateACME {
		d.NextRenewal = at
	}
}
