// SPDX-License-Identifier: Apache-2.0

// Package jwt checks JSON Web Tokens (RFC 7519, RFC 8725) that clients give as
// passwords, against the key sets of their issuers (RFC 7517). It fetches nothing,
// owns no goroutine, and reads no clock.
package jwt

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

const (
	// tokenMax is the longest token, in bytes, that is looked at.
	tokenMax = 16 << 10
	// leeway is how far the issuer's clock may be before ours. It is not given to
	// exp: a token ends when it says so.
	leeway = time.Minute
	// keySets is how many parsed key sets are kept.
	keySets = 4096
)

// Checker checks tokens. It is safe for concurrent use. Make it with New.
type Checker struct {
	parsed *lru.Cache[string, *keys] // by the text of the set
}

// New returns a Checker.
func New() (*Checker, error) {
	parsed, err := lru.New[string, *keys](keySets)
	if err != nil {
		return nil, errs.New(errs.Internal, "key sets: %w", err)
	}
	return &Checker{parsed}, nil
}

// Issuer is the claim iss of what has the form of a signed token; nothing of it is
// checked. ok is false if it has not that form: it is some other password.
func (*Checker) Issuer(token []byte) (issuer string, ok bool) {
	if len(token) > tokenMax || !bytes.HasPrefix(token, []byte("eyJ")) || bytes.Count(token, []byte(".")) != 2 {
		return "", false
	}
	parts := strings.Split(string(token), ".")
	var header struct {
		Alg string `json:"alg"`
	}
	if !decode(parts[0], &header) || header.Alg == "" {
		return "", false
	}
	var claims struct {
		Issuer string `json:"iss"`
	}
	if !decode(parts[1], &claims) {
		return "", false
	}
	return claims.Issuer, true
}

func decode(part string, to any) bool {
	b, err := base64.RawURLEncoding.DecodeString(part)
	return err == nil && json.Unmarshal(b, to) == nil
}

func refused(format string, args ...any) error {
	return errs.Coded(errs.Denied, tenancy.CodeTokenRefused, "the token is refused: "+format, args...)
}

// Check checks a token of the issuer, whose keys are jwks, at the time now. The
// error is Denied, with CodeTokenRefused or CodeTokenKeyUnknown; its text may be told
// to who has shown the token.
func (c *Checker) Check(i *tenancy.Issuer, jwks string, token []byte, now time.Time) (t tenancy.Token, err error) {
	algorithms := make([]jose.SignatureAlgorithm, 0, 16)
	for _, a := range i.Taken() {
		algorithms = append(algorithms, jose.SignatureAlgorithm(a))
	}
	signed, err := jose.ParseSignedCompact(string(token), algorithms)
	if err != nil || len(signed.Signatures) != 1 {
		return t, refused("expected one that is signed with one of %s", strings.Join(i.Taken(), ", "))
	}
	k, ok := c.parsed.Get(jwks)
	if !ok {
		if k, err = parseKeys(jwks); err != nil {
			k = &keys{} // what has no keys says that a key is unknown
		}
		c.parsed.Add(jwks, k)
	}
	header := signed.Signatures[0].Protected
	key, known := k.find(header.KeyID, header.Algorithm)
	switch {
	case key == nil && !known:
		return t, errs.Coded(errs.Denied, tenancy.CodeTokenKeyUnknown, "the token is refused: its issuer has no key %.64q", header.KeyID)
	case key == nil && header.KeyID == "":
		return t, refused("it does not say which key it is signed with (kid), and the issuer has several")
	case key == nil:
		return t, refused("its key is not for %s", header.Algorithm)
	}
	payload, err := signed.Verify(key.Key)
	if err != nil {
		return t, refused("the signature is wrong")
	}
	claims := map[string]json.RawMessage{}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return t, refused("expected claims in JSON")
	}
	return read(i, claims, now)
}

// read takes from verified claims what they say.
func read(i *tenancy.Issuer, claims map[string]json.RawMessage, now time.Time) (t tenancy.Token, err error) {
	var issuer string
	if json.Unmarshal(claims["iss"], &issuer) != nil || issuer != i.Issuer {
		return t, refused("it is another issuer's")
	}
	audience, ok := texts(claims["aud"])
	if !ok || !slices.ContainsFunc(audience, func(a string) bool { return slices.Contains(i.Audience, a) }) {
		return t, refused("it is for somebody else (aud)")
	}
	t.Expires, ok = date(claims["exp"])
	switch {
	case !ok:
		return t, refused("expected the time of its end (exp)")
	case !now.Before(t.Expires):
		return t, refused("it has expired")
	}
	for _, name := range []string{"nbf", "iat"} {
		raw, there := claims[name]
		if !there {
			continue
		}
		from, ok := date(raw)
		if !ok {
			return t, refused("expected a time in %s", name)
		}
		if now.Add(leeway).Before(from) {
			return t, refused("it is not good yet (%s)", name)
		}
	}
	if json.Unmarshal(claims[i.Username()], &t.Username) != nil || tenancy.ValidUsername(t.Username) != nil {
		return t, refused("expected a user name in the claim %.64q", i.Username())
	}
	if name := i.ClientIDClaim; name != "" {
		if json.Unmarshal(claims[name], &t.ClientID) != nil || t.ClientID == "" {
			return t, refused("expected a client id in the claim %.64q", name)
		}
	}
	for _, list := range []struct {
		name string
		to   *[]string
	}{{i.PublishClaim, &t.Publish}, {i.SubscribeClaim, &t.Subscribe}} {
		if list.name == "" {
			continue
		}
		// Without the claim a token of the issuer would be limited to nothing.
		if *list.to, ok = texts(claims[list.name]); !ok {
			return t, refused("expected a list of topic filters in the claim %.64q", list.name)
		}
	}
	t.Claims = others(claims)
	return t, nil
}

// ofTheToken are claims that differ from one token of a client to its next (RFC 7519
// §4.1).
var ofTheToken = []string{"iss", "aud", "exp", "nbf", "iat", "jti"}

// others are the claims that policies may use.
func others(claims map[string]json.RawMessage) (all map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(claims)) {
		var text *string
		switch {
		case len(all) == tenancy.TokenClaims:
			return all
		case slices.Contains(ofTheToken, name), json.Unmarshal(claims[name], &text) != nil, text == nil:
		case len(name) <= tenancy.TokenClaimSize && len(*text) <= tenancy.TokenClaimSize:
			if all == nil {
				all = map[string]string{}
			}
			all[name] = *text
		}
	}
	return all
}

// texts reads a list of texts, or one text; the list is never nil if ok.
func texts(raw json.RawMessage) (all []string, ok bool) {
	var one string
	if json.Unmarshal(raw, &one) == nil && !bytes.Equal(bytes.TrimSpace(raw), []byte("null")) {
		return []string{one}, true
	}
	var list []*string
	if json.Unmarshal(raw, &list) != nil || list == nil {
		return nil, false
	}
	all = make([]string, 0, len(list))
	for _, s := range list {
		if s == nil {
			return nil, false
		}
		all = append(all, *s)
	}
	return all, true
}

// date reads a NumericDate (RFC 7519 §2).
func date(raw json.RawMessage) (time.Time, bool) {
	var seconds *float64
	if json.Unmarshal(raw, &seconds) != nil || seconds == nil || *seconds < 0 || *seconds > 253402300799 { // the year 9999
		return time.Time{}, false
	}
	whole := int64(*seconds)
	return time.Unix(whole, int64((*seconds-float64(whole))*1e9)), true
}
