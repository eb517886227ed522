// SPDX-License-Identifier: Apache-2.0

// Package events keeps what happens to the connections of a tenant's clients: who
// came, who went and why, who was refused, and what was not passed on. Gateways write,
// the API reads; between them is one stream of the bus, within bounds. A Writer's Run
// owns its goroutines; it never makes a connection wait.
package events

import (
	"context"
	"fmt"
	"hash/fnv"
	"strconv"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/level"
)

// Kind is what happened.
type Kind string

// The kinds.
const (
	Connected    Kind = "connected"
	Disconnected Kind = "disconnected"
	// Denied: a client, or a subscription, was refused for who it is or what it
	// may do.
	Denied Kind = "denied"
	// Throttled: a client was refused, or is read more slowly, because of a quota.
	Throttled Kind = "throttled"
	// Dropped: messages were not passed on.
	Dropped Kind = "dropped"
	// QuotaNear: 80% of a quota is used, at all gateways or brokers together. QuotaReached: all of
	// it is. Reason is the quota. Each is told once when it begins, and not again for
	// some minutes.
	QuotaNear    Kind = "quota_80"
	QuotaReached Kind = "quota_100"
	// SourceApplied: a file that the tenant's credentials or policy come from has changed, and
	// holds. SourceFailed: it could not be applied. Reason is the kind of the file.
	SourceApplied Kind = "source_applied"
	SourceFailed  Kind = "source_failed"
)

// Kinds are all kinds.
func Kinds() []Kind {
	return []Kind{Connected, Disconnected, Denied, Throttled, Dropped, QuotaNear, QuotaReached, SourceApplied, SourceFailed}
}

// Event is something that happened to a client. It is a plain value.
type Event struct {
	At       time.Time `json:"at"`
	Kind     Kind      `json:"kind"`
	ClientID string    `json:"client_id,omitempty"`
	Username string    `json:"username,omitempty"`
	// Address is the client's own, after PROXY and X-Forwarded-For.
	Address  string `json:"address,omitempty"`
	Listener string `json:"listener,omitempty"`
	Gateway  string `json:"gateway,omitempty"`
	// Protocol is 3.1, 3.1.1 or 5; empty if that is not known.
	Protocol string `json:"protocol,omitempty"`
	// Reason is the name of the reason code, or of why messages were dropped, and
	// Why a sentence on it.
	Reason string `json:"reason,omitempty"`
	Why    string `json:"why,omitempty"`
	// Topic is the topic filter that was refused.
	Topic string `json:"topic,omitempty"`
	// Count is how many there were, if more than one.
	Count int `json:"count,omitempty"`
}

// OfQuota is the event that a tenant has come to a level, which is not Below, with a quota, of
// which the part used is used.
func OfQuota(now time.Time, quota string, at level.Level, used float64) Event {
	e := Event{At: now.UTC(), Kind: QuotaNear, Reason: quota, Why: fmt.Sprintf("%.0f%% of the quota is used", 100*min(used, 1))}
	if at == level.Reached {
		e.Kind, e.Why = QuotaReached, "the quota is used up: who needs more of it waits, or is refused"
	}
	return e
}

// same reports whether o is the same thing once more.
func (e *Event) same(o *Event) bool {
	return e.Kind == o.Kind && e.ClientID == o.ClientID && e.Reason == o.Reason && e.Topic == o.Topic &&
		(e.Kind == Dropped || e.Kind == Throttled || e.Kind == Denied)
}

// Bounds of the stream. Days is the most that a plan keeps.
const (
	Days       = 30
	mostBytes  = 1 << 30
	perSubject = 100_000 // records, of up to a second each
)

// Open opens the stream of all tenants.
func Open(ctx context.Context, b bus.Bus) (bus.Stream, error) {
	return b.Stream(ctx, bus.StreamConfig{Name: "events", Age: Days * 24 * time.Hour, Bytes: mostBytes, PerSubject: perSubject})
}

// slots are how many subjects a tenant has. A client's events are in one of them, so
// that its timeline is found by reading that part.
const slots = 8

func subject(tenant string, slot int) string { return tenant + "." + strconv.Itoa(slot) }

func slotOf(client string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(client))
	return int(h.Sum32() % slots)
}
