// SPDX-License-Identifier: Apache-2.0

package tenancy

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/json"
	"time"

	"github.com/manormq/manor/infra/errs"
)

// TicketsBucket has the TicketSecrets of a region at TicketsKey, as Encode writes them:
// sealed for TicketsPurpose, where the region has a key for that. Whoever can read them
// can open session tickets, and so read recorded TLS 1.2 that was resumed by them; TLS 1.3
// exchanges new keys even then (RFC 8446 §2.2).
const (
	TicketsBucket  = "tls_tickets"
	TicketsKey     = "secrets"
	TicketsPurpose = "secrets of TLS session tickets"
)

// Life of TicketSecrets: a ticket is good for 16 to 24 hours.
const (
	TicketsEvery = 8 * time.Hour
	ticketsKept  = 3
)

// ticketSecretSize is that of a secret, in bytes.
const ticketSecretSize = 32

// TicketSecrets are what the keys of TLS session tickets (RFC 5077, RFC 8446
// §4.6.1) are derived from, the newest first: that one seals, all of them open.
// They are immutable, and the same for all gateways.
type TicketSecrets struct {
	Secrets []TicketSecret `json:"secrets"`
	// Sealed reports whether they were stored so.
	Sealed bool `json:"-"`
}

// TicketSecret is one secret.
type TicketSecret struct {
	Secret    []byte    `json:"secret"`
	CreatedAt time.Time `json:"created_at"`
}

// sealedTickets is the JSON of what was sealed.
type sealedTickets struct {
	Sealed []byte `json:"sealed"`
}

// Encode writes the value at TicketsKey; seal, which is told TicketsPurpose, may be nil.
func (s *TicketSecrets) Encode(seal func(purpose string, text []byte) []byte) ([]byte, error) {
	text, err := json.Marshal(s)
	if err == nil && seal != nil {
		text, err = json.Marshal(sealedTickets{seal(TicketsPurpose, text)})
	}
	if err != nil {
		return nil, errs.New(errs.Internal, "encode ticket secrets: %w", err)
	}
	return text, nil
}

// DecodeTickets reads the value at TicketsKey. open undoes what seal of Encode did, and is
// not called for what is not sealed.
func DecodeTickets(value []byte, open func(purpose string, sealed []byte) ([]byte, error)) (*TicketSecrets, error) {
	var sealed sealedTickets
	if json.Unmarshal(value, &sealed) == nil && len(sealed.Sealed) > 0 {
		text, err := open(TicketsPurpose, sealed.Sealed)
		if err != nil {
			return nil, errs.New(errs.KindOf(err), "stored ticket secrets: %w", err)
		}
		value = text
	}
	s := &TicketSecrets{Sealed: len(sealed.Sealed) > 0}
	if err := json.Unmarshal(value, s); err != nil {
		return nil, errs.New(errs.Internal, "stored ticket secrets: %w", err)
	}
	if len(s.Secrets) == 0 {
		return nil, errs.New(errs.Internal, "stored ticket secrets: expected at least one")
	}
	for _, x := range s.Secrets {
		if len(x.Secret) != ticketSecretSize {
			return nil, errs.New(errs.Internal, "stored ticket secrets: expected %d bytes, found %d", ticketSecretSize, len(x.Secret))
		}
	}
	return s, nil
}

// Due reports whether it is time for a new secret; nil is due.
func (s *TicketSecrets) Due(now time.Time) bool { return s.olderThan(TicketsEvery, now) }

// Stale reports whether the newest secret has had its time: nobody makes new ones.
func (s *TicketSecrets) Stale(now time.Time) bool { return s.olderThan(ticketsKept*TicketsEvery, now) }

func (s *TicketSecrets) olderThan(d time.Duration, now time.Time) bool {
	return s == nil || now.Sub(s.Secrets[0].CreatedAt) >= d
}

// With returns s, which may be nil, with a new secret of 32 random bytes, and
// without the oldest.
func (s *TicketSecrets) With(secret [ticketSecretSize]byte, now time.Time) *TicketSecrets {
	out := &TicketSecrets{Secrets: []TicketSecret{{secret[:], now}}}
	if s != nil {
		out.Secrets = append(out.Secrets, s.Secrets[:min(len(s.Secrets), ticketsKept-1)]...)
	}
	return out
}

// Keys derives the keys of one purpose by HKDF (RFC 5869): no other purpose has
// them.
func (s *TicketSecrets) Keys(purpose string) ([][32]byte, error) {
	keys := make([][32]byte, len(s.Secrets))
	for i, x := range s.Secrets {
		k, err := hkdf.Key(sha256.New, x.Secret, nil, "manor session ticket 1 "+purpose, len(keys[i]))
		if err != nil {
			return nil, errs.New(errs.Internal, "ticket key: %w", err)
		}
		copy(keys[i][:], k)
	}
	return keys, nil
}
