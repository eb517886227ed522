// SPDX-License-Identifier: Apache-2.0

package jwks

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/manormq/manor/infra/bus/mem"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/tenancy/store"
	"github.com/manormq/manor/tenancy/tenancytest"
)

// Tenants whose issuers let one wait do not keep the keys of others away, though they have
// more issuers than are asked at once.
func TestFetcher_SlowIssuers(t *testing.T) {
	t.Parallel()
	s, err := store.New(t.Context(), store.Config{Bus: mem.New(), Log: telemetry.Discard(), Region: "local"})
	if err != nil {
		t.Fatal(err)
	}
	f, err := New(Config{Store: s, Networks: []string{"127.0.0.1"}, Log: telemetry.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-ctx.Done():
		}
	}))
	t.Cleanup(slow.Close)
	for _, tenant := range []string{"slow-1", "slow-2"} {
		for n := range 10 {
			f.wanted[tenant] = append(f.wanted[tenant], fmt.Sprintf("%s/%d", slow.URL, n))
		}
	}
	from := tenancytest.NewIssuer(t, "issuer")
	f.wanted["acme"] = []string{from.URL}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.round(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
	for end := time.Now().Add(fetchTime * 3 / 4); ; time.Sleep(5 * time.Millisecond) {
		if k, _, err := s.TokenKeys(ctx, "acme", from.URL); err == nil && k.JWKS == from.JWKS() {
			break
		}
		if time.Now().After(end) {
			t.Fatal("slow issuers of two tenants keep the keys of a third away")
		}
	}
	end, err := f.slots.Take(ctx, "other")
	if err != nil {
		t.Fatal(err)
	}
	end()
	if _, _, err := s.TokenKeys(ctx, "slow-1", slow.URL+"/0"); err == nil {
		t.Error("a slow issuer has answered")
	}
}
