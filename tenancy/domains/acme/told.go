// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	acmeproto "github.com/mholt/acmez/v3/acme"

	"github.com/manormq/manor/infra/errs"
)

// LimitedError is a refusal of a CA because of its rate limits. Its Kind is Denied.
type LimitedError struct {
	// RetryAfter is for how long the CA wants not to be asked; 0 if it did not say.
	RetryAfter time.Duration
	// Name is set if the limit is one of the name alone, else it may be the account's.
	Name bool
	says string
}

func (e *LimitedError) Error() string { return e.says }

// ErrKind makes LimitedError an errs.Kinder.
func (e *LimitedError) ErrKind() errs.Kind { return errs.Denied }

// told is an error as tenants may read it: the CA's words, without what libraries put
// around them. Any other cause is the operator's to know, and goes to the log.
func (a *Authority) told(fqdn string, err error) error {
	problem, ok := errors.AsType[acmeproto.Problem](err)
	if !ok {
		a.cfg.Log.Warn("the certificate authority could not be asked", "domain", fqdn, "error", err)
		return errs.New(errs.Unavailable, "the CA could not be asked")
	}
	words := []string{problem.Detail}
	for _, s := range problem.Subproblems {
		words = append(words, s.Detail)
	}
	says, kind := strings.Join(words, "; "), strings.TrimPrefix(problem.Type, "urn:ietf:params:acme:error:")
	refused := errs.New(errs.Denied, "the CA has refused (%s): %s", kind, says)
	if problem.Type != acmeproto.ProblemTypeRateLimited {
		return refused
	}
	limited := &LimitedError{Name: aboutName(fqdn, says), says: refused.Error()}
	if late, ok := errors.AsType[*lateError](err); ok {
		limited.RetryAfter = late.after
	}
	return limited
}

// aboutName reports whether a CA's words about a rate limit mean a name, and not the
// account. ACME has one kind of problem for both; Let's Encrypt puts the name, or the
// domain above it, between quotes, or speaks of the set of names.
func aboutName(fqdn, says string) bool {
	if strings.Contains(says, "exact set of") {
		return true
	}
	for name := fqdn; strings.Contains(name, "."); _, name, _ = strings.Cut(name, ".") {
		if strings.Contains(says, strconv.Quote(name)) {
			return true
		}
	}
	return false
}

// lateError is an error with the Retry-After of the answer.
type lateError struct {
	error
	after time.Duration
}

func (e *lateError) Unwrap() error { return e.error }

// heard is where listening leaves the Retry-After of refusals, in the context of requests:
// the protocol's library does not tell.
type heard struct{ after time.Duration }

type heardKey struct{}

// listening is a RoundTripper that fills in the heard of a request. One order makes its
// requests one after the other.
type listening struct{ http.RoundTripper }

func (l listening) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := l.RoundTripper.RoundTrip(r)
	if h, ok := r.Context().Value(heardKey{}).(*heard); ok && err == nil && answer.StatusCode >= http.StatusBadRequest {
		h.after = retryAfter(answer.Header.Get("Retry-After"), time.Now())
	}
	return answer, err
}

// retryAfter reads a header (RFC 9110 §10.2.3); 0 is none.
func retryAfter(header string, now time.Time) time.Duration {
	if n, err := strconv.ParseInt(header, 10, 32); err == nil && n > 0 {
		return time.Duration(n) * time.Second
	}
	if at, err := http.ParseTime(header); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}

// listen returns a context for the requests of an order, and what puts the Retry-After of
// the last refusal to an error.
func listen(ctx context.Context) (context.Context, func(error) error) {
	h := &heard{}
	return context.WithValue(ctx, heardKey{}, h), func(err error) error {
		if err == nil || h.after == 0 {
			return err
		}
		return &lateError{err, h.after}
	}
}
