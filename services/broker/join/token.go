// SPDX-License-Identifier: Apache-2.0

package join

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"time"

	"github.com/manormq/manor/infra/errs"
)

// MostTTL bounds for how long a token may be good.
const MostTTL = 7 * 24 * time.Hour

// tokenPrefix begins a token, so that people and scanners know it, and has its version.
const tokenPrefix = "manor-join-1."

// token is what a token says. It is written as expiry u64 (Unix seconds), id, the
// fingerprint of the CA (SHA-256 of its certificate), the node's name, and a MAC of all
// that.
type token struct {
	expiry      int64
	id          [16]byte
	fingerprint [sha256.Size]byte
	// node is the name that it is for, empty for any.
	node string
	mac  [sha256.Size]byte
}

func (t *token) signed() []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(t.expiry))
	b = append(append(b, t.id[:]...), t.fingerprint[:]...)
	return append(b, t.node...)
}

func (t *token) String() string {
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(append(t.signed(), t.mac[:]...))
}

// parseToken reads a token. It says nothing about whether the MAC is right. The error is
// Invalid.
func parseToken(s string) (*token, error) {
	text, ok := strings.CutPrefix(strings.TrimSpace(s), tokenPrefix)
	b, err := base64.RawURLEncoding.DecodeString(text)
	const fixed = 8 + 16 + 2*sha256.Size
	if !ok || err != nil || len(b) < fixed || len(b) > fixed+255 {
		return nil, errs.New(errs.Invalid, "expected a join token, which begins with %s and is whole: make one with manor admin cluster token create", tokenPrefix)
	}
	t := &token{expiry: int64(binary.BigEndian.Uint64(b))}
	copy(t.id[:], b[8:])
	copy(t.fingerprint[:], b[24:])
	t.node = string(b[56 : len(b)-sha256.Size])
	copy(t.mac[:], b[len(b)-sha256.Size:])
	return t, nil
}

// ID names the token in logs and where it is noted as used.
func (t *token) ID() string { return hex.EncodeToString(t.id[:]) }

// current returns an error Denied if the token has expired, or is for another node.
func (t *token) current(node string, now time.Time) error {
	if now.Unix() >= t.expiry {
		return errs.New(errs.Denied, "the join token has expired at %s: make another with manor admin cluster token create", time.Unix(t.expiry, 0).UTC().Format(time.RFC3339))
	}
	if t.node != "" && t.node != node {
		return errs.New(errs.Denied, "the join token is for a broker called %q, this one is %q", t.node, node)
	}
	return nil
}

// Token makes a token that is good for ttl from now on, for a broker of that name, or of
// any if node is empty. The error is Invalid.
func (a *Authority) Token(now time.Time, ttl time.Duration, node string) (string, error) {
	if ttl < time.Second || ttl > MostTTL {
		return "", errs.New(errs.Invalid, "expected a ttl of 1s to %v, found %v", MostTTL, ttl)
	}
	if len(node) > 255 {
		return "", errs.New(errs.Invalid, "expected a name of up to 255 bytes, found %d", len(node))
	}
	t := &token{expiry: now.Add(ttl).Unix(), fingerprint: sha256.Sum256(a.cert.Raw), node: node}
	if _, err := rand.Read(t.id[:]); err != nil {
		return "", err
	}
	t.mac = a.sum(t)
	return t.String(), nil
}

// check returns the token if it is this CA's and good for node now. The error is Invalid
// or Denied.
func (a *Authority) check(s, node string, now time.Time) (*token, error) {
	t, err := parseToken(s)
	if err != nil {
		return nil, err
	}
	own := sha256.Sum256(a.cert.Raw)
	mac := a.sum(t)
	if !bytes.Equal(own[:], t.fingerprint[:]) || !hmac.Equal(mac[:], t.mac[:]) {
		return nil, errs.New(errs.Denied, "the join token is not one of this cluster: its CA has not made it")
	}
	return t, t.current(node, now)
}

func (a *Authority) sum(t *token) (out [sha256.Size]byte) {
	h := hmac.New(sha256.New, a.mac)
	h.Write(t.signed())
	h.Sum(out[:0])
	return out
}
