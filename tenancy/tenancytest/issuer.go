// SPDX-License-Identifier: Apache-2.0

package tenancytest

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/manormq/manor/tenancy"
)

// Issuer signs tokens, and serves the keys to check them. It is safe for concurrent
// use.
type Issuer struct {
	t    testing.TB
	Name string
	// URL is where its keys are.
	URL string

	mu     sync.Mutex
	keys   []jose.JSONWebKey // the newest last, with its private part
	asked  int
	broken bool
}

// NewIssuer makes an issuer with one key of ES256, whose id is 1.
func NewIssuer(t testing.TB, name string) *Issuer {
	t.Helper()
	i := &Issuer{t: t, Name: name}
	i.Rotate("1")
	s := httptest.NewServer(i)
	t.Cleanup(s.Close)
	i.URL = s.URL
	return i
}

// ServeHTTP serves the keys.
func (i *Issuer) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	i.mu.Lock()
	i.asked++
	broken := i.broken
	i.mu.Unlock()
	if broken {
		http.Error(w, "away", http.StatusServiceUnavailable)
		return
	}
	_, _ = w.Write([]byte(i.JWKS()))
}

// Break has the issuer answer no more, or again.
func (i *Issuer) Break(broken bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.broken = broken
}

// Asked is how often its keys were asked for.
func (i *Issuer) Asked() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.asked
}

// Rotate makes another key, of that id, the only one.
func (i *Issuer) Rotate(kid string) {
	i.t.Helper()
	i.use(jose.JSONWebKey{Key: newKey(i.t), KeyID: kid, Algorithm: "ES256", Use: "sig"})
}

func (i *Issuer) use(keys ...jose.JSONWebKey) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = keys
}

// UseAll makes keys of RSA, ES256 and Ed25519, whose ids are r, e and o, those that it
// has.
func (i *Issuer) UseAll() {
	i.t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		i.t.Fatal(err)
	}
	_, seed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		i.t.Fatal(err)
	}
	i.use(jose.JSONWebKey{Key: key, KeyID: "r"}, jose.JSONWebKey{Key: newKey(i.t), KeyID: "e"}, jose.JSONWebKey{Key: seed, KeyID: "o"})
}

// JWKS is the set of the keys.
func (i *Issuer) JWKS() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	var set jose.JSONWebKeySet
	for _, k := range i.keys {
		set.Keys = append(set.Keys, k.Public())
	}
	b, err := json.Marshal(set)
	if err != nil {
		i.t.Error(err)
	}
	return string(b)
}

// Issuer is what a tenant says of it; its tokens are for manor.
func (i *Issuer) Issuer() tenancy.Issuer {
	return tenancy.Issuer{Issuer: i.Name, Audience: []string{"manor"}, JWKSURL: i.URL}
}

// Token signs, with the newest key, claims of somebody of that name for one hour;
// more replaces claims, and nil takes one away.
func (i *Issuer) Token(sub string, more map[string]any) string {
	i.t.Helper()
	i.mu.Lock()
	k := i.keys[len(i.keys)-1]
	i.mu.Unlock()
	return i.sign(k, alg(k.Key), sub, more)
}

// TokenBy is Token with the key of that id and an algorithm.
func (i *Issuer) TokenBy(kid, algorithm, sub string, more map[string]any) string {
	i.t.Helper()
	i.mu.Lock()
	keys := i.keys
	i.mu.Unlock()
	for _, k := range keys {
		if k.KeyID == kid {
			return i.sign(k, jose.SignatureAlgorithm(algorithm), sub, more)
		}
	}
	i.t.Fatalf("there is no key %q", kid)
	return ""
}

func alg(key any) jose.SignatureAlgorithm {
	switch key.(type) {
	case *rsa.PrivateKey:
		return jose.RS256
	case *ecdsa.PrivateKey:
		return jose.ES256
	}
	return jose.EdDSA
}

func (i *Issuer) sign(k jose.JSONWebKey, algorithm jose.SignatureAlgorithm, sub string, more map[string]any) string {
	i.t.Helper()
	claims := map[string]any{"iss": i.Name, "aud": "manor", "sub": sub, "exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Unix()}
	maps.Copy(claims, more)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	return Sign(i.t, k, algorithm, claims)
}

// Sign signs claims with any key, also one that nobody should sign with.
func Sign(t testing.TB, key any, algorithm jose.SignatureAlgorithm, claims map[string]any) string {
	t.Helper()
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: key}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := s.Sign(body)
	if err != nil {
		t.Fatal(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}
