// SPDX-License-Identifier: Apache-2.0

package tenancy

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/manormq/manor/infra/errs"
)

// Issuer is somebody whose tokens (JWT, RFC 7519) a tenant takes as passwords. It
// is a plain value; nobody changes the slices.
type Issuer struct {
	// Issuer is the claim iss of its tokens.
	Issuer string `json:"issuer" doc:"The claim iss of its tokens." example:"https://issuer.example/"`
	// Audience are values of the claim aud, of which a token must have one.
	Audience []string `json:"audience" minItems:"1" maxItems:"20" doc:"Values of the claim aud, of which a token must have one."`
	// Algorithms are those with which a token may be signed; empty is all of
	// TokenAlgorithms.
	Algorithms []string `json:"algorithms,omitempty" enum:"EdDSA,ES256,ES384,ES512,RS256,RS384,RS512,PS256,PS384,PS512" doc:"With which tokens may be signed; left out, all of these."`
	// JWKSURL is where its keys are (RFC 7517 §5); JWKS are they themselves, in
	// JSON. One of the two is empty.
	JWKSURL string `json:"jwks_url,omitempty" doc:"Where its keys are (RFC 7517): an https:// address on the public internet. They are fetched every 5 minutes, and when a token has a key that is not known."`
	JWKS    string `json:"jwks,omitempty" doc:"The keys themselves, in JSON, instead of jwks_url; at most 32 KiB, public keys only."`
	// UsernameClaim names the claim that is the user name; empty is sub.
	UsernameClaim string `json:"username_claim,omitempty" doc:"The claim that is the user name; left out, sub."`
	// ClientIDClaim names a claim that must be the client id; empty is none.
	ClientIDClaim string `json:"client_id_claim,omitempty" doc:"A claim that must be the client id."`
	// PublishClaim and SubscribeClaim name claims that are lists of topic filters,
	// to which the client is limited, and which every token must have; empty is none.
	PublishClaim   string `json:"publish_claim,omitempty" doc:"A claim that every token must have, with the topic filters that may be published to."`
	SubscribeClaim string `json:"subscribe_claim,omitempty" doc:"A claim that every token must have, with the topic filters that may be subscribed to."`
}

// Bounds of issuers. A tenant's record has to fit into one message of the bus.
const (
	issuersMax   = 10
	audiencesMax = 20
	issuerText   = 1024     // bytes of a name, an audience, a URL, a claim
	jwksMax      = 32 << 10 // bytes
)

// tokenAlgorithms sign with a private key that the issuer alone has. HS256 and its
// like are none of them: who can check those can also make them, and a public key
// taken for their secret lets everybody in (RFC 8725 §2.1, §3.1).
var tokenAlgorithms = []string{"EdDSA", "ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}

// TokenAlgorithms are the names of the algorithms that tokens may be signed with
// (RFC 7518 §3.1, RFC 8037).
func TokenAlgorithms() []string { return slices.Clone(tokenAlgorithms) }

// Taken are the algorithms that the issuer's tokens may be signed with.
func (i *Issuer) Taken() []string {
	if len(i.Algorithms) == 0 {
		return tokenAlgorithms
	}
	return i.Algorithms
}

// Username is the name of the claim that is the user name.
func (i *Issuer) Username() string {
	if i.UsernameClaim == "" {
		return "sub"
	}
	return i.UsernameClaim
}

// ValidIssuers checks a tenant's issuers, but for the keys in JWKS, which
// tenancy/authn/jwt reads. The error is Invalid with Code "issuers_invalid".
func ValidIssuers(all []Issuer) error {
	if len(all) > issuersMax {
		return errs.Coded(errs.Invalid, issuersWrong, "expected at most %d issuers, found %d", issuersMax, len(all))
	}
	for n := range all {
		if err := all[n].valid(); err != nil {
			return errs.Coded(errs.Invalid, issuersWrong, "issuer %d: %w", n+1, err)
		}
		if slices.ContainsFunc(all[:n], func(i Issuer) bool { return i.Issuer == all[n].Issuer }) {
			return errs.Coded(errs.Invalid, issuersWrong, "the issuer %q is there twice", all[n].Issuer)
		}
	}
	return nil
}

const issuersWrong = "issuers_invalid"

func (i *Issuer) valid() error {
	invalid := func(format string, args ...any) error { return errs.New(errs.Invalid, format, args...) }
	texts := append([]string{i.Issuer, i.JWKSURL, i.UsernameClaim, i.ClientIDClaim, i.PublishClaim, i.SubscribeClaim}, i.Audience...)
	for _, s := range texts {
		if len(s) > issuerText || !utf8.ValidString(s) {
			return invalid("expected texts of at most %d bytes of UTF-8, found one of %d bytes", issuerText, len(s))
		}
	}
	switch {
	case i.Issuer == "":
		return invalid("issuer: expected the claim iss of its tokens")
	case len(i.Audience) == 0 || len(i.Audience) > audiencesMax || slices.Contains(i.Audience, ""):
		return invalid("audience: expected 1 to %d values of the claim aud: a token for somebody else is none for this tenant", audiencesMax)
	case (i.JWKSURL == "") == (i.JWKS == ""):
		return invalid("expected either jwks_url or jwks")
	case len(i.JWKS) > jwksMax:
		return invalid("jwks: expected at most %d bytes, found %d", jwksMax, len(i.JWKS))
	}
	for _, a := range i.Algorithms {
		if !slices.Contains(tokenAlgorithms, a) {
			return invalid("algorithms: expected some of %s, found %.40q", strings.Join(tokenAlgorithms, ", "), a)
		}
	}
	if i.JWKSURL == "" {
		return nil
	}
	u, err := url.Parse(i.JWKSURL)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" || u.Scheme != "https" && u.Scheme != "http" {
		// It is not said what was found: there may be a password in it.
		return invalid("jwks_url: expected an address like https://issuer.example/.well-known/jwks.json, http or https, without a user or a fragment")
	}
	return nil
}

// IssuerOf returns the tenant's issuer of that name, or nil.
func (t *Tenant) IssuerOf(name string) *Issuer {
	for n := range t.Issuers {
		if t.Issuers[n].Issuer == name {
			return &t.Issuers[n]
		}
	}
	return nil
}

// Token is what a token says that is good.
type Token struct {
	Username string
	// ClientID is what Issuer.ClientIDClaim says; empty if there is no such claim.
	ClientID string
	// Expires is when it ends.
	Expires time.Time
	// Publish and Subscribe are the filters of the claims; nil if its issuer names no
	// such claim.
	Publish, Subscribe []string
	// Claims are those of its other claims that are texts, for policies; at most
	// TokenClaims of up to TokenClaimSize bytes.
	Claims map[string]string
}

// Bounds of Token.Claims: what is beyond them is left out.
const (
	TokenClaims    = 32
	TokenClaimSize = 256
)

// Codes of errors about tokens, whose text may be told to who has shown one.
const (
	// CodeTokenRefused is of a token that is not good.
	CodeTokenRefused = "token_refused"
	// CodeTokenKeyUnknown is of a token whose key is not known; the issuer may have
	// a new one.
	CodeTokenKeyUnknown = "token_key_unknown"
)

// KeysBucket maps a KeySetKey to a KeySet in JSON. Gateways read it.
const KeysBucket = "token_keys"

// SubjectKeys is where tenancyd answers a KeySetRequest with a KeySet.
const SubjectKeys = "tenancy.token-keys"

// KeySetRequest asks for the keys of a tenant's issuer to be fetched again.
type KeySetRequest struct {
	Tenant string `json:"tenant"`
	URL    string `json:"url"`
}

// KeySet is what was fetched from an Issuer.JWKSURL. It is a plain value.
type KeySet struct {
	Tenant string `json:"tenant"`
	URL    string `json:"url"`
	// JWKS are the keys, as they came; empty if they never did.
	JWKS string `json:"jwks,omitempty"`
	// FetchedAt is when they came, TriedAt when they were last asked for, and
	// Problem why they did not come then.
	FetchedAt time.Time `json:"fetched_at,omitzero"`
	TriedAt   time.Time `json:"tried_at"`
	Problem   string    `json:"problem,omitempty"`
}

// KeySetKey is the key of a KeySet: tenant id, a dot, and the URL's name.
func KeySetKey(tenant, address string) string {
	sum := digest(address)
	return tenant + "." + base64.RawURLEncoding.EncodeToString(sum[:18])
}

// DecodeKeySet reads the value of a key in KeysBucket.
func DecodeKeySet(value []byte) (*KeySet, error) {
	k := &KeySet{}
	if err := json.Unmarshal(value, k); err != nil {
		return nil, errs.New(errs.Internal, "stored keys of an issuer: %w", err)
	}
	return k, nil
}
