// SPDX-License-Identifier: Apache-2.0

package jwks

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/manormq/manor/infra/bus/mem"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/store"
	"github.com/manormq/manor/tenancy/tenancytest"
)

func TestPublic(t *testing.T) {
	for a, want := range map[string]bool{
		"8.8.8.8": true, "2606:4700::1111": true, "::ffff:8.8.8.8": true,
		"127.0.0.1": false, "127.9.9.9": false, "::1": false, "::ffff:127.0.0.1": false, "0.0.0.0": false, "::": false,
		"10.0.0.1": false, "172.16.0.1": false, "172.31.255.255": false, "192.168.1.1": false, "::ffff:10.0.0.1": false,
		"169.254.169.254": false, "fe80::1": false, "fd00::1": false, "fc00::1": false, "100.64.0.1": false, "100.127.255.255": false,
		"224.0.0.1": false, "239.1.1.1": false, "ff02::1": false, "240.0.0.1": false, "255.255.255.255": false, "192.0.2.1": false, "198.18.0.1": false,
		"64:ff9b::a00:1": false, "2002:7f00:1::": false, "2001:0:1::1": false, "2001:db8::1": false, "::7f00:1": false, "fec0::1": false, "4000::1": false,
	} {
		if public(netip.MustParseAddr(a)) != want {
			t.Errorf("%s: expected %v", a, want)
		}
	}
	if public(netip.Addr{}) || public(netip.MustParseAddr("fe80::1%eth0")) {
		t.Error("no address")
	}
}

// Nobody reaches into the operator's network: not by an address, nor by a name, nor by
// a redirect, nor by how an address is written.
func TestGetter_Guard(t *testing.T) {
	from := tenancytest.NewIssuer(t, "issuer")
	secured := httptest.NewTLSServer(from)
	t.Cleanup(secured.Close)
	inside, err := url.Parse(secured.URL)
	if err != nil {
		t.Fatal(err)
	}
	g := newGetter(nil)
	for _, address := range []string{
		from.URL, secured.URL, "https://localhost:" + inside.Port(), "https://[::1]:" + inside.Port(), "https://0.0.0.0:" + inside.Port(), "https://127.1:" + inside.Port(),
		"https://2130706433:" + inside.Port(), "https://[::ffff:127.0.0.1]:" + inside.Port(), "https://169.254.169.254/latest/meta-data/", "http://169.254.169.254/latest/",
		"file:///etc/passwd", "https://", "gopher://x",
	} {
		if jwks, err := g.get(t.Context(), address); err == nil || jwks != "" {
			t.Errorf("%s is reached", address)
		}
	}
	if n := from.Asked(); n != 0 {
		t.Errorf("the server was asked %d times", n)
	}
	// What is allowed must not redirect to what is not.
	for _, to := range []string{"http://localhost:" + inside.Port(), "https://169.254.169.254/", "file:///etc/passwd"} {
		hop := httptest.NewServer(http.RedirectHandler(to, http.StatusFound))
		g := newGetter(tenancy.ParseNetworks([]string{"127.0.0.1"}))
		if _, err := g.get(t.Context(), hop.URL); err == nil {
			t.Errorf("a redirect leads to %s", to)
		}
		hop.Close()
	}
	var loop *httptest.Server
	loop = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, loop.URL, http.StatusFound) }))
	t.Cleanup(loop.Close)
	if _, err := newGetter(tenancy.ParseNetworks([]string{"127.0.0.1"})).get(t.Context(), loop.URL); err == nil {
		t.Error("redirects without an end")
	}
}

func TestGetter(t *testing.T) {
	g := newGetter(tenancy.ParseNetworks([]string{"127.0.0.0/8"}))
	for name, x := range map[string]struct {
		status int
		body   string
		want   string // a part of the error
	}{
		"nothing":  {200, "", "no key set"},
		"secret":   {200, `{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}`, "no key set"},
		"web page": {200, "<html>internal page</html>", "no key set"},
		"away":     {503, "internal page", "expected the status 200, found 503"},
		"endless":  {200, strings.Repeat(" ", 64<<10) + `{"keys":[]}`, "at most 65536 bytes"},
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(x.status)
			_, _ = w.Write([]byte(x.body))
		}))
		_, err := g.get(t.Context(), s.URL)
		if err == nil || !strings.Contains(err.Error(), x.want) || strings.Contains(err.Error(), "internal page") || strings.Contains(err.Error(), "127.0.0.1") {
			t.Errorf("%s: %v, want %q", name, err, x.want)
		}
		s.Close()
	}
	from := tenancytest.NewIssuer(t, "issuer")
	if got, err := g.get(t.Context(), from.URL); err != nil || got != from.JWKS() {
		t.Errorf("%q, %v", got, err)
	}
}

// clock is a clock that is moved.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

func TestFetcher(t *testing.T) {
	b := mem.New()
	c := &clock{t: time.Now()}
	s, err := store.New(t.Context(), store.Config{Bus: b, Log: telemetry.Discard(), Region: "local", Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.EnsureTenant(t.Context(), "acme", store.EnsureOptions{}); err != nil {
		t.Fatal(err)
	}
	from := tenancytest.NewIssuer(t, "issuer")
	// Two, as in two processes.
	for range 2 {
		f, err := New(Config{Store: s, Networks: []string{"127.0.0.1"}, Log: telemetry.Discard(), Now: c.now})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- f.Run(ctx) }()
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	known := func() *tenancy.KeySet {
		k, _, err := s.TokenKeys(t.Context(), "acme", from.URL)
		if err != nil && !errs.Is(err, errs.NotFound) {
			t.Fatal(err)
		}
		return k
	}
	eventually := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("there is still not: %s", what)
			}
		}
	}
	if _, err := s.UpdateTenant(t.Context(), "acme", 0, store.Issuers([]tenancy.Issuer{from.Issuer()})); err != nil {
		t.Fatal(err)
	}
	eventually("keys", func() bool { k := known(); return k != nil && k.JWKS == from.JWKS() })
	ask := func() (*tenancy.KeySet, error) {
		body, err := json.Marshal(tenancy.KeySetRequest{Tenant: "acme", URL: from.URL})
		if err != nil {
			t.Fatal(err)
		}
		answer, err := b.Request(t.Context(), tenancy.SubjectKeys, body)
		if err != nil {
			return nil, err
		}
		return tenancy.DecodeKeySet(answer)
	}
	// A key that gateways do not know has the issuer asked, but not for each of them.
	first, asked := from.JWKS(), from.Asked()
	from.Rotate("2")
	for range 20 {
		if k, err := ask(); err != nil || k.JWKS != first {
			t.Fatalf("%+v, %v", k, err)
		}
	}
	if n := from.Asked(); n != asked {
		t.Errorf("the issuer was asked %d times at once", n-asked)
	}
	c.move(askedEvery)
	if k, err := ask(); err != nil || k.JWKS != from.JWKS() {
		t.Errorf("%+v, %v", k, err)
	}
	// What is known stays while the issuer is away.
	from.Break(true)
	c.move(askedEvery)
	k, err := ask()
	if err != nil || k.JWKS != from.JWKS() || k.Problem == "" || k.FetchedAt.Equal(k.TriedAt) {
		t.Errorf("%+v, %v", k, err)
	}
	// Only what tenants have said is fetched.
	body, _ := json.Marshal(tenancy.KeySetRequest{Tenant: "acme", URL: from.URL + "/other"})
	if _, err := b.Request(t.Context(), tenancy.SubjectKeys, body); !errs.Is(err, errs.NotFound) {
		t.Errorf("another address: %v", err)
	}
	if _, err := s.UpdateTenant(t.Context(), "acme", 0, store.Issuers(nil)); err != nil {
		t.Fatal(err)
	}
	eventually("no keys", func() bool { return known() == nil })
}
