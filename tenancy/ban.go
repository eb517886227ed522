// SPDX-License-Identifier: Apache-2.0

package tenancy

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"math/big"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/manormq/manor/infra/errs"
)

// BansBucket maps a Ban.Key to a Ban in JSON. Gateways read it.
const BansBucket = "bans"

// What a Ban is about.
const (
	BanClientID = "client_id"
	BanUsername = "username"
	// BanAddress is an IP address, or a network such as 10.0.0.0/8.
	BanAddress = "address"
	// BanCertificate is a client certificate: sha256: and the digest of its DER, or
	// serial: and its serial number, both in hexadecimal.
	BanCertificate = "certificate"
)

// BanKinds are the kinds of Ban.
func BanKinds() []string { return []string{BanClientID, BanUsername, BanAddress, BanCertificate} }

// Ban keeps some of a tenant's clients out. It is a plain value.
type Ban struct {
	ID     string `json:"id"`
	Tenant string `json:"tenant"`
	Kind   string `json:"kind"`
	Value  string `json:"value"`
	// Reason is told to who is banned.
	Reason    string    `json:"reason,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	// ExpiresAt is its end; zero is never.
	ExpiresAt time.Time `json:"expires_at,omitzero"`
	// Automatic says that a gateway has asked for it; see Flapping. Level is how
	// often in a row that was.
	Automatic bool `json:"automatic,omitempty"`
	Level     int  `json:"level,omitempty"`
	// Revision is the bucket's; it is not part of the value.
	Revision uint64 `json:"-"`
}

// Bounds of bans.
const (
	// BansMax is how many a tenant may have.
	BansMax = 10_000
	// AutomaticBansMax is up to how many bans of a tenant, of either sort, gateways make
	// further ones: the rest is for people.
	AutomaticBansMax = BansMax / 2
	banReasonMax     = 256 // bytes
)

func digest(parts ...string) [sha256.Size]byte {
	return sha256.Sum256([]byte(strings.Join(parts, "\x00")))
}

// BanID is the id of the ban of that kind and normal value: there is one only.
func BanID(kind, value string) string {
	sum := digest(kind, value)
	return "ban_" + hex.EncodeToString(sum[:13])
}

// BanPrefix is what the keys of a tenant's bans begin with.
func BanPrefix(tenant string) string { return tenant + "." }

// Key is its key in BansBucket: tenant id, a dot, and its id.
func (b *Ban) Key() string { return BanPrefix(b.Tenant) + b.ID }

// DecodeBan reads the value of a key in BansBucket.
func DecodeBan(value []byte, revision uint64) (*Ban, error) {
	b := &Ban{Revision: revision}
	if err := json.Unmarshal(value, b); err != nil {
		return nil, errs.New(errs.Internal, "stored ban: %w", err)
	}
	return b, nil
}

// Active reports whether it holds at that time.
func (b *Ban) Active(now time.Time) bool { return b.ExpiresAt.IsZero() || now.Before(b.ExpiresAt) }

// Text says to a client that it is banned.
func (b *Ban) Text() string {
	text := "banned"
	if !b.ExpiresAt.IsZero() {
		text += " until " + b.ExpiresAt.UTC().Format(time.RFC3339)
	}
	if b.Reason != "" {
		text += ": " + b.Reason
	}
	return text
}

// Normalize checks Kind, Value and Reason, and brings the value into the form in
// which it is compared. The error is Invalid with Code "ban_invalid".
func (b *Ban) Normalize() error {
	invalid := func(format string, args ...any) error {
		return errs.Coded(errs.Invalid, "ban_invalid", format, args...)
	}
	if len(b.Reason) > banReasonMax || !utf8.ValidString(b.Reason) || strings.ContainsFunc(b.Reason, func(r rune) bool { return r < ' ' || r >= 0x7F && r < 0xA0 }) {
		return invalid("reason: expected at most %d bytes of UTF-8 without control characters", banReasonMax)
	}
	switch b.Kind {
	case BanClientID:
		if b.Value == "" || len(b.Value) > maxU16 || !utf8.ValidString(b.Value) {
			return invalid("value: expected a client id of 1 to %d bytes of UTF-8", maxU16)
		}
	case BanUsername:
		if err := ValidUsername(b.Value); err != nil {
			return invalid("value: %w", err)
		}
	case BanAddress:
		p, err := ParseNetwork(b.Value)
		if err != nil {
			return invalid("value: %w", err)
		}
		b.Value = networkText(p)
	case BanCertificate:
		v, ok := certificateValue(b.Value)
		if !ok {
			return invalid("value: expected sha256: and 64 hexadecimal digits, or serial: and hexadecimal digits, found %.100q", b.Value)
		}
		b.Value = v
	default:
		return invalid("kind: expected one of %s, found %.40q", strings.Join(BanKinds(), ", "), b.Kind)
	}
	return nil
}

// certificateValue is the normal form of the value of a BanCertificate: openssl
// prints colons between the digits, and capitals.
func certificateValue(v string) (string, bool) {
	kind, digits, ok := strings.Cut(strings.ToLower(v), ":")
	digits = strings.ReplaceAll(digits, ":", "")
	if !ok || digits == "" || len(digits) > 64 || strings.Trim(digits, "0123456789abcdef") != "" {
		return "", false
	}
	switch kind {
	case "sha256":
		return "sha256:" + digits, len(digits) == 64
	case "serial":
		n, ok := new(big.Int).SetString(digits, 16)
		return "serial:" + n.Text(16), ok
	}
	return "", false
}

// Client is what a connection is compared with bans by.
type Client struct {
	ClientID string
	// Username is empty while it is not known.
	Username    string
	Address     netip.Addr
	Certificate *x509.Certificate // nil if it has shown none that is good for the tenant
}

// Bans are a tenant's bans, made to be looked up. They are immutable. nil has
// none.
type Bans struct {
	named    map[string]*Ban // by kind, NUL and value; networks of one address too
	networks []banned
	certs    bool
}

type banned struct {
	network netip.Prefix
	ban     *Ban
}

// NewBans makes them of bans that are normal; the slice is not kept.
func NewBans(all []*Ban) *Bans {
	b := &Bans{named: make(map[string]*Ban, len(all))}
	for _, x := range all {
		if x.Kind == BanAddress {
			if p, err := ParseNetwork(x.Value); err == nil && !p.IsSingleIP() {
				b.networks = append(b.networks, banned{p, x})
				continue
			}
		}
		b.certs = b.certs || x.Kind == BanCertificate
		b.named[x.Kind+"\x00"+x.Value] = x
	}
	return b
}

// Match returns a ban that holds for the client at that time, or nil.
func (b *Bans) Match(c Client, now time.Time) *Ban {
	if b == nil || len(b.named)+len(b.networks) == 0 {
		return nil
	}
	a := c.Address.Unmap().WithZone("")
	for _, key := range [...]string{BanClientID + "\x00" + c.ClientID, BanUsername + "\x00" + c.Username, BanAddress + "\x00" + a.String()} {
		if x := b.named[key]; x != nil && x.Active(now) {
			return x
		}
	}
	for _, n := range b.networks {
		if n.network.Contains(a) && n.ban.Active(now) {
			return n.ban
		}
	}
	if b.certs && c.Certificate != nil {
		sum := sha256.Sum256(c.Certificate.Raw)
		for _, v := range [...]string{"sha256:" + hex.EncodeToString(sum[:]), "serial:" + c.Certificate.SerialNumber.Text(16)} {
			if x := b.named[BanCertificate+"\x00"+v]; x != nil && x.Active(now) {
				return x
			}
		}
	}
	return nil
}

// Len is how many they are.
func (b *Bans) Len() int {
	if b == nil {
		return 0
	}
	return len(b.named) + len(b.networks)
}
