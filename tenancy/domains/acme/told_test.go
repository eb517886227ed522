// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	acmeproto "github.com/mholt/acmez/v3/acme"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/telemetry"
)

// Tenants are told the CA's words, and nothing of where it is; limits of one name are
// told from those of the account.
func TestTold(t *testing.T) {
	a := &Authority{cfg: Config{Log: telemetry.Discard()}}
	const name = "mqtt.acme.example"
	if err := a.told(name, errors.New("dial tcp 10.0.0.7:14000: refused")); strings.Contains(err.Error(), "10.0.0.7") || !errs.Is(err, errs.Unavailable) {
		t.Errorf("an internal address is told: %v", err)
	}
	problem := acmeproto.Problem{Type: acmeproto.ProblemTypeNamespace + "caa", Detail: "CAA forbids it"}
	if err := a.told(name, problem); err.Error() != "the CA has refused (caa): CAA forbids it" || !errs.Is(err, errs.Denied) {
		t.Errorf("%v", err)
	}
	for says, about := range map[string]bool{
		`too many new orders (300) from this account in the last 3h0m0s`:                    false,
		`too many failed authorizations (5) for "mqtt.acme.example" in the last 1h0m0s`:     true,
		`too many certificates (50) already issued for "acme.example" in the last 168h0m0s`: true,
		`too many certificates (5) already issued for this exact set of identifiers`:        true,
		`too many certificates (50) already issued for "mqtt.acme.example.org"`:             false,
	} {
		err := a.told(name, fmt.Errorf("obtain: %w", &lateError{acmeproto.Problem{Type: acmeproto.ProblemTypeRateLimited, Detail: says}, time.Minute}))
		if l, ok := errors.AsType[*LimitedError](err); !ok || l.Name != about || l.RetryAfter != time.Minute || !errs.Is(err, errs.Denied) {
			t.Errorf("%s: %#v", says, err)
		}
	}
}

func TestListen(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "120")
		w.WriteHeader(http.StatusTooManyRequests)
	}))
	defer s.Close()
	ctx, late := listen(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := listening{http.DefaultTransport}.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	if l, ok := errors.AsType[*lateError](late(errors.New("refused"))); !ok || l.after != 2*time.Minute {
		t.Errorf("heard %+v", l)
	}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for header, want := range map[string]time.Duration{"": 0, "-5": 0, "nonsense": 0, "7": 7 * time.Second, "Fri, 02 Jan 2026 03:05:05 GMT": time.Minute} {
		if got := retryAfter(header, now); got != want {
			t.Errorf("%q: %v, want %v", header, got, want)
		}
	}
}
