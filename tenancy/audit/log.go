// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
)

// The buckets.
const (
	recordsBucket = "audit"         // organization.number -> Record
	headsBucket   = "audit_heads"   // organization -> head
	notesBucket   = "audit_pending" // id -> Record that is not in the chain yet
)

// Config says what a Log stands on.
type Config struct {
	Bus bus.Bus
	Log *slog.Logger
	// Days is for how many days the records of an organization are kept; a
	// negative number is for ever, less than 1 is 1.
	Days func(ctx context.Context, organization string) (int64, error)
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Log is the audit log of all organizations. It is safe for concurrent use, by
// any number of processes too. Make it with Open.
type Log struct {
	cfg                   Config
	now                   func() time.Time
	records, heads, notes bus.Bucket
	seed                  maphash.Seed
	// turns has those wait who write to the same organization in this process;
	// others are noticed by what they write.
	turns [64]chan struct{}
	mu    sync.Mutex
	known map[string]known // by organization; guarded by mu
}

// head is where a chain ends, as far as somebody has written. It may lag, and is
// never ahead of the records.
type head struct {
	N    uint64 `json:"n"`
	Hash string `json:"hash"`
	// First is the oldest record that retention has left.
	First uint64 `json:"first"`
}

// known is a head that this process has seen.
type known struct {
	head
	at       time.Time
	revision bus.Revision // of what is stored, which may be older
}

// knownLife is how long a head is believed without looking: much shorter than
// the shortest retention, after which a number could be free again.
const knownLife = time.Hour

// Open opens the buckets and makes those that are missing.
func Open(ctx context.Context, cfg Config) (*Log, error) {
	l := &Log{cfg: cfg, now: cfg.Now, seed: maphash.MakeSeed(), known: map[string]known{}}
	if l.now == nil {
		l.now = time.Now
	}
	for i := range l.turns {
		l.turns[i] = make(chan struct{}, 1)
	}
	for name, to := range map[string]*bus.Bucket{recordsBucket: &l.records, headsBucket: &l.heads, notesBucket: &l.notes} {
		b, err := cfg.Bus.Bucket(ctx, bus.BucketConfig{Name: name})
		if err != nil {
			return nil, errs.New(errs.KindOf(err), "open the audit log: %w", err)
		}
		*to = b
	}
	return l, nil
}

// Change is a change that is about to be made.
type Change struct {
	Organization string
	Actor        Actor
	Address      string
	Method       string
	Operation    string
	Tenant       string
	Target       string
	// Before is what is there now, or nil. Secrets in it are of type
	// tenancy.Secret.
	Before any
}

// Pending is a change that was noted. One caller ends it, with Done, Drop, Refused
// or Lost.
type Pending struct {
	l *Log
	r Record
}

// Begin notes a change. Until it has returned without an error, the change must
// not be made.
func (l *Log) Begin(ctx context.Context, c Change) (*Pending, error) {
	before, err := value(c.Before)
	if err != nil {
		return nil, err
	}
	// What JSON cannot hold would be written as U+FFFD and hashed as what it was.
	for _, text := range []*string{&c.Target, &c.Tenant, &c.Address, &c.Actor.ID} {
		*text = strings.ToValidUTF8(*text, "\uFFFD")
	}
	p := &Pending{l: l, r: Record{
		ID: ulid.Make().String(), Organization: c.Organization, At: l.now().UTC().Truncate(time.Millisecond), Actor: c.Actor, Address: c.Address,
		Method: c.Method, Operation: c.Operation, Tenant: c.Tenant, Target: c.Target, Before: before, Outcome: Unknown,
	}}
	b, err := json.Marshal(p.r)
	if err != nil {
		return nil, errs.New(errs.Internal, "encode an audit record: %w", err)
	}
	if _, err := l.notes.Put(ctx, p.r.ID, b, bus.Absent); err != nil {
		return nil, errs.New(errs.KindOf(err), "note a change in the audit log: %w", err)
	}
	return p, nil
}

// Before replaces what was there before, where only the change itself has shown
// it.
func (p *Pending) Before(v any) (err error) {
	p.r.Before, err = value(v)
	return err
}

// Target replaces what is changed, where only the change itself has shown it.
func (p *Pending) Target(t string) { p.r.Target = strings.ToValidUTF8(t, "\uFFFD") }

// Done records that the change was made, and what is there now (nil for
// nothing). Only when it has returned without an error the change may be
// answered; with one, Run records it later, as unknown.
func (p *Pending) Done(ctx context.Context, after any) error {
	var err error
	if p.r.After, err = value(after); err != nil {
		return err
	}
	p.r.Outcome = Done
	return p.record(ctx)
}

// Refused records that the change was refused, and why: it was not made.
func (p *Pending) Refused(ctx context.Context, why any) error {
	var err error
	if p.r.After, err = value(why); err != nil {
		return err
	}
	p.r.Outcome = Denied
	return p.record(ctx)
}

// Lost records that it is not known whether the change was made.
func (p *Pending) Lost(ctx context.Context) error { return p.record(ctx) }

func (p *Pending) record(ctx context.Context) error {
	if err := p.l.append(ctx, &p.r); err != nil {
		return errs.New(errs.KindOf(err), "record a change in the audit log: %w", err)
	}
	p.forget(ctx)
	return nil
}

// Drop forgets a change that was not made.
func (p *Pending) Drop(ctx context.Context) { p.forget(ctx) }

func (p *Pending) forget(ctx context.Context) {
	if err := p.l.notes.Delete(ctx, p.r.ID, bus.Any); err != nil {
		// Run finds it, and sees whether it is recorded.
		p.l.cfg.Log.Warn("note of a change not removed", "id", p.r.ID, "error", err)
	}
}

func key(organization string, n uint64) string { return fmt.Sprintf("%s.%016d", organization, n) }

// turn has the caller write to the organization alone in this process.
func (l *Log) turn(ctx context.Context, organization string) (end func(), err error) {
	t := l.turns[maphash.String(l.seed, organization)%uint64(len(l.turns))]
	select {
	case t <- struct{}{}:
		return func() { <-t }, nil
	case <-ctx.Done():
		return nil, errs.New(errs.Unavailable, "wait for the audit log: %w", ctx.Err())
	}
}

// append gives r its place in the chain and stores it there.
func (l *Log) append(ctx context.Context, r *Record) error {
	_, err := l.appendUnless(ctx, r, func(uint64) (bool, error) { return false, nil })
	return err
}

// appendUnless appends r unless the chain has it already. has says so for the first end
// records, and is asked again whenever somebody else was first: what is put behind an end
// that it has looked at is not there a second time. It reports whether it was appended.
func (l *Log) appendUnless(ctx context.Context, r *Record, has func(end uint64) (bool, error)) (bool, error) {
	end, err := l.turn(ctx, r.Organization)
	if err != nil {
		return false, err
	}
	defer end()
	for {
		h, err := l.head(ctx, r.Organization)
		if err != nil {
			return false, err
		}
		if there, err := has(h.N); there || err != nil {
			return false, err
		}
		r.N, r.Previous = h.N+1, h.Hash
		if r.Hash, err = r.sum(); err != nil {
			return false, err
		}
		b, err := json.Marshal(r)
		if err != nil {
			return false, errs.New(errs.Internal, "encode an audit record: %w", err)
		}
		_, err = l.records.Put(ctx, key(r.Organization, r.N), b, bus.Absent)
		if err == nil {
			h.N, h.Hash = r.N, r.Hash
			l.remember(ctx, r.Organization, h)
			return true, nil
		}
		l.forget(r.Organization)
		if !errs.Is(err, errs.Conflict) {
			return false, err
		}
	}
}

func (l *Log) forget(organization string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.known, organization)
}

// head returns where the chain ends: what was known or stored, and what follows
// it.
func (l *Log) head(ctx context.Context, organization string) (known, error) {
	l.mu.Lock()
	h, ok := l.known[organization]
	l.mu.Unlock()
	if ok && l.now().Sub(h.at) < knownLife {
		return h, nil
	}
	h, err := l.stored(ctx, organization)
	if err != nil {
		return h, err
	}
	for {
		r, err := l.record(ctx, organization, h.N+1)
		if errs.Is(err, errs.NotFound) {
			return h, nil
		}
		if err != nil {
			return h, err
		}
		h.N, h.Hash = r.N, r.Hash
	}
}

func (l *Log) stored(ctx context.Context, organization string) (known, error) {
	h := known{at: l.now(), head: head{First: 1}}
	e, err := l.heads.Get(ctx, organization)
	if errs.Is(err, errs.NotFound) {
		return h, nil
	}
	if err != nil {
		return h, err
	}
	h.revision = e.Revision
	if err := json.Unmarshal(e.Value, &h.head); err != nil {
		return h, errs.New(errs.Internal, "stored head of an audit log: %w", err)
	}
	return h, nil
}

// remember stores h, unless somebody else has stored another one meanwhile; then
// the next look finds the end from there.
func (l *Log) remember(ctx context.Context, organization string, h known) {
	b, err := json.Marshal(h.head)
	if err == nil {
		h.revision, err = l.heads.Put(ctx, organization, b, h.revision)
	}
	if err != nil {
		l.forget(organization)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.known) > 10_000 {
		clear(l.known)
	}
	l.known[organization] = h
}

func (l *Log) record(ctx context.Context, organization string, n uint64) (Record, error) {
	e, err := l.records.Get(ctx, key(organization, n))
	if err != nil {
		return Record{}, err
	}
	return Decode(e.Value)
}
