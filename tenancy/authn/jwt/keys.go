// SPDX-License-Identifier: Apache-2.0

package jwt

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/go-jose/go-jose/v4"

	"github.com/manormq/manor/infra/errs"
)

// Bounds of key sets.
const (
	// KeysMax is how many bytes of JSON a key set may have.
	KeysMax = 64 << 10
	keysMax = 64   // keys
	rsaMin  = 2048 // bits (RFC 7518 §3.3)
	rsaMax  = 8192
)

// keys are the keys of an issuer that can check signatures.
type keys struct {
	all []jose.JSONWebKey
	// skipped are keys that cannot be used here, and why the first cannot.
	skipped int
	why     string
}

// parseKeys reads a JWK set (RFC 7517 §5). Keys that are of no use here are left
// out, as §5 wants; a secret or private key is an error, which nobody must publish.
func parseKeys(jwks string) (*keys, error) {
	if len(jwks) > KeysMax {
		return nil, errs.New(errs.Invalid, "expected a key set of at most %d bytes, found %d", KeysMax, len(jwks))
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal([]byte(jwks), &set); err != nil {
		return nil, errs.New(errs.Invalid, `expected a key set like {"keys":[…]}: %w`, err)
	}
	if len(set.Keys) > keysMax {
		return nil, errs.New(errs.Invalid, "expected at most %d keys, found %d", keysMax, len(set.Keys))
	}
	out := &keys{}
	skip := func(n int, why string) {
		if out.skipped++; out.why == "" {
			out.why = "key " + strconv.Itoa(n+1) + ": " + why
		}
	}
	for n, raw := range set.Keys {
		var about struct{ Kty, Use, D, K string }
		if err := json.Unmarshal(raw, &about); err != nil {
			skip(n, err.Error())
			continue
		}
		if about.Kty == "oct" || about.D != "" || about.K != "" {
			return nil, errs.New(errs.Invalid, "key %d is secret or private, and has been sent here; replace it, and publish public keys only", n+1)
		}
		var k jose.JSONWebKey
		if err := json.Unmarshal(raw, &k); err != nil {
			skip(n, strings.TrimPrefix(err.Error(), "go-jose/go-jose: "))
			continue
		}
		if why := unfit(&k, about.Use); why != "" {
			skip(n, why)
			continue
		}
		out.all = append(out.all, k)
	}
	return out, nil
}

// unfit says why a key is of no use, empty if it is.
func unfit(k *jose.JSONWebKey, use string) string {
	if use != "" && use != "sig" {
		return "it is not for signatures"
	}
	switch key := k.Key.(type) {
	case *rsa.PublicKey:
		if n := key.N.BitLen(); n < rsaMin || n > rsaMax {
			return "expected 2048 to 8192 bits of RSA"
		}
	case *ecdsa.PublicKey, ed25519.PublicKey:
	default:
		return "expected a public key of RSA, ECDSA or Ed25519"
	}
	if !k.Valid() {
		return "it is not valid"
	}
	return ""
}

// find returns the key of that id that fits the algorithm. A token without an id
// has to leave no choice.
func (k *keys) find(kid, alg string) (key *jose.JSONWebKey, known bool) {
	n := 0
	for i := range k.all {
		x := &k.all[i]
		if kid != "" && x.KeyID != kid {
			continue
		}
		known = true
		if fits(x, alg) {
			key = x
			n++
		}
	}
	if n != 1 {
		return nil, known
	}
	return key, true
}

// fits reports whether a key signs by the algorithm; one that names its own signs by
// no other (RFC 8725 §3.1).
func fits(k *jose.JSONWebKey, alg string) bool {
	if k.Algorithm != "" && k.Algorithm != alg {
		return false
	}
	switch key := k.Key.(type) {
	case *rsa.PublicKey:
		return strings.HasPrefix(alg, "RS") || strings.HasPrefix(alg, "PS")
	case *ecdsa.PublicKey:
		return alg == map[int]string{256: "ES256", 384: "ES384", 521: "ES512"}[key.Curve.Params().BitSize]
	case ed25519.PublicKey:
		return alg == "EdDSA"
	}
	return false
}

// CheckKeys returns the ids of the keys of a JWK set that can be used. The error is
// Invalid if there is none.
func CheckKeys(jwks string) (ids []string, err error) {
	k, err := parseKeys(jwks)
	if err != nil {
		return nil, err
	}
	if len(k.all) == 0 {
		why := k.why
		if why == "" {
			why = "it is empty"
		}
		return nil, errs.New(errs.Invalid, "expected a key set with a key for signatures: %s", why)
	}
	for i := range k.all {
		ids = append(ids, k.all[i].KeyID)
	}
	return ids, nil
}
