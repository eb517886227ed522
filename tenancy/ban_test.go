// SPDX-License-Identifier: Apache-2.0

package tenancy_test

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/tenancytest"
)

func TestBan_Normalize(t *testing.T) {
	sum := strings.Repeat("ab", 32)
	for _, x := range []struct{ kind, value, want string }{
		{"client_id", "press-7", "press-7"},
		{"username", "a:b", "a:b"},
		{"address", "10.1.2.3", "10.1.2.3"},
		{"address", "10.1.2.3/8", "10.0.0.0/8"},
		{"address", "::ffff:10.1.2.3", "10.1.2.3"},
		{"address", "10.1.2.3/32", "10.1.2.3"},
		{"address", "2001:DB8::1/64", "2001:db8::/64"},
		{"certificate", "sha256:" + sum, "sha256:" + sum},
		{"certificate", "SHA256:" + strings.ToUpper(strings.Repeat("ab:", 31)+"ab"), "sha256:" + sum},
		{"certificate", "serial:00:0A:ff", "serial:aff"},
		{"client_id", "", ""},
		{"client_id", "\xff", ""},
		{"username", "", ""},
		{"username", "a\nb", ""},
		{"address", "x", ""},
		{"address", "fe80::1%eth0", ""},
		{"address", "::ffff:10.0.0.0/104", ""},
		{"certificate", "sha256:ab", ""},
		{"certificate", sum, ""},
		{"certificate", "serial:", ""},
		{"certificate", "serial:xy", ""},
		{"certificate", "md5:ab", ""},
		{"topic", "x", ""},
		{"", "x", ""},
	} {
		b := tenancy.Ban{Kind: x.kind, Value: x.value}
		err := b.Normalize()
		if x.want == "" {
			if errs.CodeOf(err) != "ban_invalid" || !errs.Is(err, errs.Invalid) {
				t.Errorf("%s %q: %v", x.kind, x.value, err)
			}
		} else if err != nil || b.Value != x.want {
			t.Errorf("%s %q: %q, %v", x.kind, x.value, b.Value, err)
		}
	}
	for _, reason := range []string{strings.Repeat("x", 257), "a\nb", "\xff"} {
		if b := (tenancy.Ban{Kind: "client_id", Value: "x", Reason: reason}); b.Normalize() == nil {
			t.Errorf("reason %q", reason)
		}
	}
}

func TestBans_Match(t *testing.T) {
	ca := tenancytest.NewCA(t, "ca")
	cert := func(serial int64) *x509.Certificate {
		c, err := x509.ParseCertificate(ca.Issue(serial, "x").Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	now := time.Now()
	stolen, lost := cert(255), cert(7)
	sum := sha256.Sum256(stolen.Raw)
	ban := func(kind, value string, ends time.Time) *tenancy.Ban {
		b := &tenancy.Ban{Kind: kind, Value: value, ExpiresAt: ends}
		if err := b.Normalize(); err != nil {
			t.Fatal(err)
		}
		b.ID = tenancy.BanID(b.Kind, b.Value)
		return b
	}
	bans := tenancy.NewBans([]*tenancy.Ban{
		ban("client_id", "c1", time.Time{}), ban("client_id", "over", now), ban("client_id", "still", now.Add(time.Second)),
		ban("username", "u1", time.Time{}), ban("address", "192.0.2.1", time.Time{}), ban("address", "10.0.0.0/8", time.Time{}),
		ban("address", "2001:db8::/32", time.Time{}), ban("certificate", "sha256:"+hex.EncodeToString(sum[:]), time.Time{}), ban("certificate", "serial:07", time.Time{}),
	})
	if bans.Len() != 9 {
		t.Errorf("%d bans", bans.Len())
	}
	at := func(s string) netip.Addr { return netip.MustParseAddr(s) }
	for _, x := range []struct {
		name string
		c    tenancy.Client
		want string
	}{
		{"nobody", tenancy.Client{ClientID: "c2", Username: "u2", Address: at("192.0.2.2"), Certificate: cert(8)}, ""},
		{"client id", tenancy.Client{ClientID: "c1"}, "c1"},
		{"a user name is no client id", tenancy.Client{ClientID: "u1", Username: "c1"}, ""},
		{"over", tenancy.Client{ClientID: "over"}, ""},
		{"still", tenancy.Client{ClientID: "still"}, "still"},
		{"user name", tenancy.Client{Username: "u1"}, "u1"},
		{"address", tenancy.Client{Address: at("192.0.2.1")}, "192.0.2.1"},
		{"IPv4 in IPv6", tenancy.Client{Address: at("::ffff:192.0.2.1")}, "192.0.2.1"},
		{"network", tenancy.Client{Address: at("10.255.0.1")}, "10.0.0.0/8"},
		{"IPv4 in IPv6 in a network", tenancy.Client{Address: at("::ffff:10.255.0.1")}, "10.0.0.0/8"},
		{"IPv6 network", tenancy.Client{Address: at("2001:db8:1::1%eth0")}, "2001:db8::/32"},
		{"fingerprint", tenancy.Client{Certificate: stolen}, "sha256:" + hex.EncodeToString(sum[:])},
		{"serial", tenancy.Client{Certificate: lost}, "serial:7"},
	} {
		got := ""
		if b := bans.Match(x.c, now); b != nil {
			got = b.Value
		}
		if got != x.want {
			t.Errorf("%s: %q, want %q", x.name, got, x.want)
		}
	}
	if (*tenancy.Bans)(nil).Match(tenancy.Client{ClientID: "c1"}, now) != nil {
		t.Error("no bans have one")
	}
}

func TestFlapping(t *testing.T) {
	f := &tenancy.Flapping{Connects: 5, Window: 10, Ban: 60}
	for level, want := range map[int]time.Duration{1: time.Minute, 2: 2 * time.Minute, 4: 8 * time.Minute, 11: 1024 * time.Minute, 12: 24 * time.Hour, 1 << 30: 24 * time.Hour} {
		if got := f.Duration(level); got != want {
			t.Errorf("level %d: %v, want %v", level, got, want)
		}
	}
	now := time.Now()
	for _, x := range []struct {
		level int
		quiet time.Duration
		want  int
	}{{0, 1000 * time.Hour, 1}, {1, time.Minute, 2}, {3, 59 * time.Minute, 4}, {3, 61 * time.Minute, 3}, {3, 3 * time.Hour, 1}, {3, 1e6 * time.Hour, 1}} {
		if got := tenancy.LevelAfter(x.level, now.Add(-x.quiet), now); got != x.want {
			t.Errorf("level %d, quiet for %v: %d, want %d", x.level, x.quiet, got, x.want)
		}
	}
	for _, bad := range []tenancy.Flapping{{1, 10, 60}, {5, 0, 60}, {5, 10, 0}, {5, 10, 86401}, {10_001, 1, 1}, {5, 3601, 1}} {
		if err := bad.Valid(); errs.CodeOf(err) != "flapping_invalid" {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	if f.Valid() != nil || (*tenancy.Flapping)(nil).Valid() != nil {
		t.Error("good ones are refused")
	}
}

func TestAllowList(t *testing.T) {
	for _, bad := range []tenancy.AllowList{{MQTT: []string{"x"}}, {API: []string{"10.0.0.0/33"}}, {API: make([]string, 501)}} {
		if err := bad.Valid(); errs.CodeOf(err) != "allow_list_invalid" {
			t.Errorf("%v", err)
		}
	}
	n := tenancy.ParseNetworks([]string{"10.0.0.0/8", "2001:db8::1"})
	for a, want := range map[string]bool{"10.1.1.1": true, "::ffff:10.1.1.1": true, "11.1.1.1": false, "2001:db8::1": true, "2001:db8::2": false} {
		if n.Allow(netip.MustParseAddr(a)) != want {
			t.Errorf("%s: expected %v", a, want)
		}
	}
	if !tenancy.Networks(nil).Allow(netip.MustParseAddr("1.1.1.1")) || n.Allow(netip.Addr{}) {
		t.Error("no list, or no address")
	}
}

func TestAuthMethods(t *testing.T) {
	for _, bad := range [][]string{nil, {"password", "password"}, {"ldap"}} {
		if err := tenancy.ValidAuthMethods(bad); errs.CodeOf(err) != "auth_methods_invalid" {
			t.Errorf("%v: %v", bad, err)
		}
	}
	if err := tenancy.ValidAuthMethods(tenancy.AuthMethods()); err != nil {
		t.Error(err)
	}
	if tn := (&tenancy.Tenant{AuthMethods: []string{"jwt"}}); tn.Takes("password") || !tn.Takes("jwt") || !(&tenancy.Tenant{}).Takes("password") {
		t.Error("Takes")
	}
}

func TestIssuers(t *testing.T) {
	good := tenancy.Issuer{Issuer: "i", Audience: []string{"a"}, JWKSURL: "https://i.example/jwks"}
	if err := tenancy.ValidIssuers([]tenancy.Issuer{good}); err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func(*tenancy.Issuer){
		"no name":       func(i *tenancy.Issuer) { i.Issuer = "" },
		"no audience":   func(i *tenancy.Issuer) { i.Audience = nil },
		"empty":         func(i *tenancy.Issuer) { i.Audience = []string{""} },
		"no keys":       func(i *tenancy.Issuer) { i.JWKSURL = "" },
		"both":          func(i *tenancy.Issuer) { i.JWKS = "{}" },
		"none":          func(i *tenancy.Issuer) { i.Algorithms = []string{"none"} },
		"HS256":         func(i *tenancy.Issuer) { i.Algorithms = []string{"RS256", "HS256"} },
		"file":          func(i *tenancy.Issuer) { i.JWKSURL = "file:///etc/passwd" },
		"no host":       func(i *tenancy.Issuer) { i.JWKSURL = "https:///x" },
		"user":          func(i *tenancy.Issuer) { i.JWKSURL = "https://a:b@c.example/" },
		"long":          func(i *tenancy.Issuer) { i.UsernameClaim = strings.Repeat("x", 1025) },
		"too many keys": func(i *tenancy.Issuer) { i.JWKSURL, i.JWKS = "", strings.Repeat("x", 32<<10+1) },
	} {
		i := good
		f(&i)
		if err := tenancy.ValidIssuers([]tenancy.Issuer{i}); errs.CodeOf(err) != "issuers_invalid" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if tenancy.ValidIssuers([]tenancy.Issuer{good, good}) == nil || tenancy.ValidIssuers(make([]tenancy.Issuer, 11)) == nil {
		t.Error("twice, or too many")
	}
}

func BenchmarkBans_Match(b *testing.B) {
	var all []*tenancy.Ban
	for n := range 10_000 {
		all = append(all, &tenancy.Ban{Kind: tenancy.BanClientID, Value: strings.Repeat("x", n%20) + time.Unix(int64(n), 0).String()})
	}
	bans, now := tenancy.NewBans(all), time.Now()
	c := tenancy.Client{ClientID: "press-7", Username: "press-7", Address: netip.MustParseAddr("192.0.2.1")}
	for b.Loop() {
		if bans.Match(c, now) != nil {
			b.Fatal("banned")
		}
	}
}
