// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strings"
	"time"

	"github.com/mholt/acmez/v3"
	acmeproto "github.com/mholt/acmez/v3/acme"

	"github.com/manormq/manor/infra/errs"
)

// Suggestion is when a CA would have a certificate renewed (ARI, RFC 9773).
type Suggestion struct {
	// From and Until are the window that it suggests; it may be over already, as that of a
	// certificate that is to be revoked.
	From, Until time.Time
	// At is a moment in the window, drawn anew at each question.
	At time.Time
	// RetryAfter is when the CA wants to be asked again; zero if it does not say.
	RetryAfter time.Time
}

// Suggested asks the CA when a certificate of its own is to be renewed. The error is
// NotFound if it has no such suggestions, or Unavailable.
func (a *Authority) Suggested(ctx context.Context, leaf *x509.Certificate) (Suggestion, error) {
	if len(leaf.AuthorityKeyId) == 0 { // by which it is named to the CA
		return Suggestion{}, errs.New(errs.NotFound, "the certificate does not say by which key it was signed")
	}
	info, err := a.client().GetRenewalInfo(ctx, leaf)
	switch {
	case errors.Is(err, acmeproto.ErrUnsupported):
		return Suggestion{}, errs.New(errs.NotFound, "the CA suggests no times of renewals (RFC 9773)")
	case err != nil:
		return Suggestion{}, errs.New(errs.Unavailable, "ask the CA when to renew: %w", err)
	}
	s := Suggestion{From: info.SuggestedWindow.Start, Until: info.SuggestedWindow.End, At: info.SelectedTime}
	if info.RetryAfter != nil {
		s.RetryAfter = *info.RetryAfter
	}
	return s, nil
}

// client speaks with the CA.
func (a *Authority) client() *acmez.Client {
	return &acmez.Client{
		Client: &acmeproto.Client{
			Directory: a.cfg.Directory, HTTPClient: a.http, UserAgent: "manor", PollInterval: pollEvery, PollTimeout: orderTime, Logger: a.quiet,
		},
		ChallengeSolvers: map[string]acmez.Solver{acmeproto.ChallengeTypeTLSALPN01: &solver{a}},
	}
}

// replaced is the certificate that an order for a name replaces, of which the CA is told, as it
// may take such an order though its limits are reached; nil if there is none, or the CA
// makes nothing of that.
func (a *Authority) replaced(ctx context.Context, client *acmez.Client, fqdn string) *x509.Certificate {
	chain, _, err := a.Stored(ctx, fqdn)
	if err != nil {
		return nil
	}
	if dir, err := client.GetDirectory(ctx); err != nil || dir.RenewalInfo == "" {
		return nil
	}
	block, _ := pem.Decode(chain)
	if block == nil {
		return nil
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil || len(leaf.AuthorityKeyId) == 0 {
		return nil
	}
	return leaf
}

// unknown reports whether an order was refused at once, perhaps because of what it is to
// replace: the CA need not know that, as one for tests does not after a start.
func unknown(err error) bool {
	problem, ok := errors.AsType[acmeproto.Problem](err)
	return ok && strings.HasPrefix(err.Error(), "creating new order") && problem.Type != acmeproto.ProblemTypeRateLimited
}
