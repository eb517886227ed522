// SPDX-License-Identifier: Apache-2.0

package domains

import (
	"context"
	"crypto/x509"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// Pace of questions about renewals (RFC 9773 §4.3.2).
const (
	suggestedAgain = 6 * time.Hour // if the CA does not say, or does not answer
	suggestedSoon  = time.Minute   // at least
	suggestedLate  = 24 * time.Hour
	// suggestionTime is how long one question may take.
	suggestionTime = 15 * time.Second
)

// renewalDue is when a certificate is to be renewed: at the moment that was chosen in the
// window of its CA, which may be over, but with a tenth of its life left for what fails; or
// at renewAt.
func renewalDue(d *tenancy.Domain, leaf *x509.Certificate) time.Time {
	if d.Renewal.At.IsZero() {
		return renewAt(leaf)
	}
	last := leaf.NotAfter.Add(-leaf.NotAfter.Sub(leaf.NotBefore) / 10)
	if d.Renewal.At.After(last) {
		return last.UTC()
	}
	return d.Renewal.At
}

// nextLook is when something is to be done for a certificate of a CA that is served.
func nextLook(d *tenancy.Domain, leaf *x509.Certificate) time.Time {
	at := renewalDue(d, leaf)
	if c := d.Renewal.Check; !c.IsZero() && c.Before(at) {
		return c
	}
	return at
}

// onlySuggestion reports whether a domain, which is looked at, wants nothing but that its CA be
// asked when to renew: the DNS is not asked then.
func (s *Service) onlySuggestion(d *tenancy.Domain, shown *x509.Certificate) bool {
	now := s.now()
	return d.Source == tenancy.CertificateACME && d.State == tenancy.DomainActive && shown != nil && !d.Asked && d.AbsentSince.IsZero() &&
		!d.Renewal.Check.IsZero() && !now.Before(d.Renewal.Check) && now.Before(renewalDue(d, shown))
}

// suggested asks the CA when a certificate is to be renewed; was is what it said of the same one
// before. A CA that does not answer leaves that, and is asked again.
func (s *Service) suggested(ctx context.Context, was tenancy.Renewal, leaf *x509.Certificate) tenancy.Renewal {
	if s.cfg.Authority == nil {
		return tenancy.Renewal{}
	}
	ctx, cancel := context.WithTimeout(ctx, suggestionTime)
	defer cancel()
	now := s.now().UTC()
	got, err := s.cfg.Authority.Suggested(ctx, leaf)
	switch {
	case errs.Is(err, errs.NotFound):
		return tenancy.Renewal{}
	case err != nil:
		s.log.Warn("the certificate authority did not say when to renew", "names", leaf.DNSNames, "error", err, "retry_in", suggestedAgain)
		was.Check = now.Add(suggestedAgain)
		return was
	}
	again := suggestedAgain
	if !got.RetryAfter.IsZero() {
		again = min(max(got.RetryAfter.Sub(now), suggestedSoon), suggestedLate)
	}
	r := tenancy.Renewal{From: got.From.UTC(), Until: got.Until.UTC(), At: got.At.UTC(), Check: now.Add(again)}
	if r.From.Equal(was.From) && r.Until.Equal(was.Until) && !was.At.IsZero() {
		r.At = was.At // chosen once: drawn again and again it would come to be the first moments
	}
	return r
}
