// SPDX-License-Identifier: Apache-2.0

package jwt

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/tenancytest"
)

func newChecker(t testing.TB) *Checker {
	t.Helper()
	c, err := New()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

type claims = map[string]any

func TestCheck(t *testing.T) {
	c, from := newChecker(t), tenancytest.NewIssuer(t, "https://issuer.example/")
	from.UseAll()
	now := time.Now()
	plain := from.Issuer()
	with := func(f func(*tenancy.Issuer)) *tenancy.Issuer {
		i := plain
		f(&i)
		return &i
	}
	filters := with(func(i *tenancy.Issuer) { i.PublishClaim, i.SubscribeClaim = "pub", "https://a.example/sub" })
	bound := with(func(i *tenancy.Issuer) { i.UsernameClaim, i.ClientIDClaim = "name", "cid" })
	for _, x := range []struct {
		name   string
		issuer *tenancy.Issuer
		token  string
		want   string // of the token, or a part of the error
	}{
		{"RS256", &plain, from.TokenBy("r", "RS256", "press-7", nil), "press-7  [] []"},
		{"PS512", &plain, from.TokenBy("r", "PS512", "press-7", nil), "press-7  [] []"},
		{"ES256", &plain, from.TokenBy("e", "ES256", "press-7", nil), "press-7  [] []"},
		{"EdDSA", &plain, from.TokenBy("o", "EdDSA", "press-7", nil), "press-7  [] []"},
		{"several audiences", &plain, from.Token("x", claims{"aud": []string{"others", "manor"}}), "x  [] []"},
		{"clock a little before", &plain, from.Token("x", claims{"iat": now.Add(30 * time.Second).Unix(), "nbf": now.Add(30 * time.Second).Unix()}), "x  [] []"},
		{"filters", filters, from.Token("x", claims{"pub": "a/b", "https://a.example/sub": []string{"c/#", "d"}}), "x  [a/b] [c/# d]"},
		{"no filter", filters, from.Token("x", claims{"pub": []string{}, "https://a.example/sub": "#"}), "x  [] [#]"},
		{"bound", bound, from.Token("x", claims{"name": "press-7", "cid": "c7"}), "press-7 c7 [] []"},

		{"algorithm", with(func(i *tenancy.Issuer) { i.Algorithms = []string{"ES256"} }), from.TokenBy("r", "RS256", "x", nil), "signed with one of ES256"},
		{"issuer", &plain, from.Token("x", claims{"iss": "somebody"}), "another issuer's"},
		{"audience", &plain, from.Token("x", claims{"aud": "others"}), "somebody else"},
		{"no audience", &plain, from.Token("x", claims{"aud": nil}), "somebody else"},
		{"audience of another type", &plain, from.Token("x", claims{"aud": []any{"manor", nil}}), "somebody else"},
		{"expired", &plain, from.Token("x", claims{"exp": now.Add(-time.Second).Unix()}), "has expired"},
		{"for ever", &plain, from.Token("x", claims{"exp": nil}), "(exp)"},
		{"exp is text", &plain, from.Token("x", claims{"exp": "tomorrow"}), "(exp)"},
		{"exp is far", &plain, from.Token("x", claims{"exp": 1e300}), "(exp)"},
		{"exp is negative", &plain, from.Token("x", claims{"exp": -1}), "(exp)"},
		{"not yet", &plain, from.Token("x", claims{"nbf": now.Add(2 * time.Minute).Unix()}), "not good yet (nbf)"},
		{"made later", &plain, from.Token("x", claims{"iat": now.Add(2 * time.Minute).Unix()}), "not good yet (iat)"},
		{"nobody", &plain, from.Token("", nil), `user name in the claim "sub"`},
		{"a number", &plain, from.Token("x", claims{"sub": 7}), `user name in the claim "sub"`},
		{"no name", bound, from.Token("x", claims{"cid": "c"}), `user name in the claim "name"`},
		{"control character", &plain, from.Token("a\nb", nil), `user name in the claim "sub"`},
		{"no client id", bound, from.Token("x", claims{"name": "x"}), `client id in the claim "cid"`},
		{"filters are missing", filters, from.Token("x", claims{"pub": "a"}), "topic filters in the claim"},
		{"filters are numbers", filters, from.Token("x", claims{"pub": []int{1}, "https://a.example/sub": "#"}), "topic filters in the claim"},
		{"filters are null", filters, from.Token("x", claims{"pub": []any{nil}, "https://a.example/sub": "#"}), "topic filters in the claim"},
	} {
		got, err := c.Check(x.issuer, from.JWKS(), []byte(x.token), now)
		if err != nil {
			if errs.CodeOf(err) != tenancy.CodeTokenRefused || !errs.Is(err, errs.Denied) || !strings.Contains(err.Error(), x.want) {
				t.Errorf("%s: %v, want %q", x.name, err, x.want)
			}
			continue
		}
		if text := fmt.Sprintf("%s %s %v %v", got.Username, got.ClientID, got.Publish, got.Subscribe); text != x.want {
			t.Errorf("%s: %q, want %q", x.name, text, x.want)
		}
		if !got.Expires.After(now) || got.Expires.After(now.Add(time.Hour+time.Minute)) { // the token was made a little later
			t.Errorf("%s: expires %v", x.name, got.Expires)
		}
	}
}

// What attackers do to tokens (RFC 8725 §2).
func TestCheck_Attacks(t *testing.T) {
	c, from, other := newChecker(t), tenancytest.NewIssuer(t, "issuer"), tenancytest.NewIssuer(t, "issuer")
	from.UseAll()
	i, jwks := from.Issuer(), from.JWKS()
	good := from.TokenBy("r", "RS256", "press-7", nil)
	parts := strings.Split(good, ".")
	enc := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	body := claims{"iss": "issuer", "aud": "manor", "sub": "admin", "exp": time.Now().Add(time.Hour).Unix()}
	// The public key as the secret of HMAC.
	secret := jose.JSONWebKey{Key: []byte(jwks), KeyID: "r"}
	other.UseAll()
	forged := other.TokenBy("r", "RS256", "admin", nil) // a key of the same id
	changed := parts[0] + "." + enc(strings.Replace(mustDecode(t, parts[1]), "press-7", "press-8", 1)) + "." + parts[2]
	for name, token := range map[string]string{
		"none":             enc(`{"alg":"none"}`) + "." + enc(`{"iss":"issuer","aud":"manor","sub":"admin","exp":99999999999}`) + ".",
		"None":             enc(`{"alg":"nOnE","kid":"r"}`) + "." + parts[1] + "." + parts[2],
		"HS256":            tenancytest.Sign(t, secret, jose.HS256, body),
		"another's key":    forged,
		"changed":          changed,
		"no signature":     parts[0] + "." + parts[1] + ".",
		"half a signature": good[:len(good)-20],
		"other algorithm":  enc(`{"alg":"ES256","kid":"r"}`) + "." + parts[1] + "." + parts[2],
		"key in header":    enc(`{"alg":"RS256","kid":"r","crit":["x"],"x":1}`) + "." + parts[1] + "." + parts[2],
		"rubbish":          "eyJ.eyJ.x",
	} {
		if got, err := c.Check(&i, jwks, []byte(token), time.Now()); err == nil || !errs.Is(err, errs.Denied) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if _, err := c.Check(&i, jwks, []byte(good), time.Now()); err != nil {
		t.Error(err)
	}
	// A token that carries its key is checked with the issuer's all the same.
	embedded := jose.JSONWebKey{Key: []byte(strings.Repeat("secret-", 10)), KeyID: "e"}
	if _, err := c.Check(&i, jwks, []byte(tenancytest.Sign(t, embedded, jose.HS512, body)), time.Now()); err == nil {
		t.Error("a key of the token's own")
	}
}

func mustDecode(t *testing.T, s string) string {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestCheck_Keys(t *testing.T) {
	c, from := newChecker(t), tenancytest.NewIssuer(t, "issuer")
	i := from.Issuer()
	code := func(jwks, token string) string {
		t.Helper()
		_, err := c.Check(&i, jwks, []byte(token), time.Now())
		return errs.CodeOf(err)
	}
	old, jwks := from.Token("x", nil), from.JWKS()
	if got := code(jwks, old); got != "" {
		t.Error(got)
	}
	for _, none := range []string{"", "rubbish", `{"keys":[]}`} {
		if got := code(none, old); got != tenancy.CodeTokenKeyUnknown {
			t.Errorf("keys %q: %q", none, got)
		}
	}
	from.Rotate("2")
	if got := code(jwks, from.Token("x", nil)); got != tenancy.CodeTokenKeyUnknown {
		t.Errorf("a new key: %q", got)
	}
	if got := code(from.JWKS(), old); got != tenancy.CodeTokenKeyUnknown {
		t.Errorf("an old key: %q", got)
	}
	// Without an id there must be no choice.
	from.Rotate("")
	if got := code(from.JWKS(), from.Token("x", nil)); got != "" {
		t.Errorf("one key without an id: %q", got)
	}
	two := strings.Replace(from.JWKS(), "[", "["+strings.TrimSuffix(strings.TrimPrefix(jwks, `{"keys":[`), `]}`)+",", 1)
	if got := code(two, from.Token("x", nil)); got != tenancy.CodeTokenRefused {
		t.Errorf("two keys and no id: %q", got)
	}
}

func TestIssuer(t *testing.T) {
	c, from := newChecker(t), tenancytest.NewIssuer(t, "https://issuer.example/")
	if got, ok := c.Issuer([]byte(from.Token("x", nil))); !ok || got != from.Name {
		t.Errorf("%q %v", got, ok)
	}
	for _, s := range []string{"", "secret", "a.b.c", "eyJhbGciOiJub25lIn0", "eyJhbGciOiJub25lIn0..", "eyJ.eyJ.eyJ", "eyJ" + strings.Repeat("x", tokenMax) + ".a.b"} {
		if got, ok := c.Issuer([]byte(s)); ok {
			t.Errorf("%.20q: %q", s, got)
		}
	}
}

func TestCheckKeys(t *testing.T) {
	from := tenancytest.NewIssuer(t, "issuer")
	from.UseAll()
	if ids, err := CheckKeys(from.JWKS()); err != nil || fmt.Sprint(ids) != "[r e o]" {
		t.Errorf("%v %v", ids, err)
	}
	// What is of no use is left out, as RFC 7517 §5 wants.
	odd := strings.Replace(from.JWKS(), "[", `[{"kty":"XYZ"},{"kty":"RSA","n":"AQAB","e":"AQAB"},{"kty":"EC","crv":"P-256","x":"AQ","y":"AQ"},`, 1)
	odd = strings.Replace(odd, `"kid":"e"`, `"kid":"e","use":"enc"`, 1)
	if ids, err := CheckKeys(odd); err != nil || fmt.Sprint(ids) != "[r o]" {
		t.Errorf("%v %v", ids, err)
	}
	for _, x := range []struct{ jwks, want string }{
		{"x", "expected a key set"},
		{`{"keys":[]}`, "it is empty"},
		{`{}`, "it is empty"},
		{`{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}`, "secret or private"},
		{`{"keys":[{"kty":"XYZ"}]}`, "key 1: "},
		{`{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}`, "2048 to 8192 bits"},
		{`{"keys":[` + strings.Repeat(`{},`, 64) + `{}]}`, "at most 64 keys"},
		{strings.Repeat(" ", KeysMax+1), "at most 65536 bytes"},
	} {
		if _, err := CheckKeys(x.jwks); !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%.50s: %v, want %q", x.jwks, err, x.want)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	private, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key, KeyID: "p"}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := CheckKeys(string(private)); err == nil || !strings.Contains(err.Error(), "private") {
		t.Errorf("a private key: %v", err)
	}
}

func FuzzCheck(f *testing.F) {
	from := tenancytest.NewIssuer(f, "issuer")
	i, jwks := from.Issuer(), from.JWKS()
	good := from.Token("x", nil)
	f.Add([]byte(good))
	f.Add([]byte("eyJ.eyJ.x"))
	c := newChecker(f)
	now := time.Now()
	f.Fuzz(func(t *testing.T, token []byte) {
		c.Issuer(token)
		if _, err := c.Check(&i, jwks, token, now); err == nil && string(token) != good {
			t.Errorf("%q is taken", token)
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	from := tenancytest.NewIssuer(b, "issuer")
	from.UseAll()
	i, jwks, c := from.Issuer(), from.JWKS(), newChecker(b)
	for _, x := range [][2]string{{"r", "RS256"}, {"e", "ES256"}, {"o", "EdDSA"}} {
		token := []byte(from.TokenBy(x[0], x[1], "press-7", nil))
		b.Run(x[1], func(b *testing.B) {
			now := time.Now()
			for b.Loop() {
				if _, err := c.Check(&i, jwks, token, now); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
