// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/services/broker/cluster"
	"github.com/manormq/manor/services/broker/operate"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/shard"
)

// What the desks of brokers ask each other goes over the links as an Ask whose body is
// deskMark and a question as JSON: no frame of a gateway's link begins so. The answer is
// a reply as JSON. An older broker answers with nothing.

// deskMark is the first byte of a desk's question.
const deskMark = 0xFF

// askTime is for how long a desk waits for the others, less than health checks may take;
// sessionsTime is that for sessions, which wait for turns of shards.
const (
	askTime      = 1500 * time.Millisecond
	sessionsTime = 5 * time.Second
)

// The questions.
const (
	askStatus   = "status"
	askRoles    = "roles"
	askCopy     = "copy"
	askSessions = "sessions"
	askDrain    = "drain"
	askHold     = "hold"
	askCell     = "cell"
	askRelocate = "relocate"
)

// question is what a desk asks another.
type question struct {
	What      string                `json:"what"`
	Partition int                   `json:"partition,omitempty"` // askCopy
	Sessions  *operate.SessionQuery `json:"sessions,omitempty"`  // askSessions
	Undo      bool                  `json:"undo,omitempty"`      // askDrain, askHold
	Tenant    string                `json:"tenant,omitempty"`    // askHold, askCell, askRelocate
	HandOver  uint64                `json:"hand_over,omitempty"` // askRelocate: of which revision; see shard.Set.Relocate
	By        string                `json:"by,omitempty"`        // askHold: for whom
}

// reply is its answer: Error, or what was asked for.
type reply struct {
	Error    string            `json:"error,omitempty"`
	Status   *operate.Node     `json:"status,omitempty"`
	Roles    []byte            `json:"roles,omitempty"` // a partition.Role for each partition
	Copy     *operate.Copy     `json:"copy,omitempty"`
	Sessions []operate.Session `json:"sessions,omitempty"`
	Revision uint64            `json:"revision,omitempty"` // of a tenant's cell
	// Relocation is how far the broker is with a tenant that moves.
	Relocation *shard.Relocation `json:"relocation,omitempty"`
}

// answer answers another desk. It may wait for turns of shards.
func (d *desk) answer(from string, b []byte) []byte {
	var q question
	var r reply
	err := json.Unmarshal(b, &q)
	if err == nil {
		err = d.reply(from, &q, &r)
	}
	if err != nil {
		r = reply{Error: err.Error()}
	}
	out, err := json.Marshal(&r)
	if err != nil {
		d.log.Error("an answer to an operator cannot be written", slog.Any("error", err))
	}
	return out
}

func (d *desk) reply(from string, q *question, r *reply) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), askTime)
	defer cancel()
	switch q.What {
	case askStatus:
		n := d.figures()
		r.Status = &n
	case askRoles:
		for _, role := range d.region.roles() {
			r.Roles = append(r.Roles, byte(role))
		}
	case askCopy:
		var c operate.Copy
		if c, err = d.region.copy(ctx, partition.ID(q.Partition)); err == nil {
			r.Copy = &c
		}
	case askSessions:
		if q.Sessions == nil {
			return errs.New(errs.Invalid, "expected what sessions are wanted")
		}
		r.Sessions, err = d.sessionsHere(q.Sessions)
	case askDrain:
		d.log.Warn("an operator says whether this broker drains", slog.String("asked_at", from), slog.Bool("drain", !q.Undo))
		d.region.host.SetDraining(!q.Undo)
	case askHold:
		if q.Undo {
			d.shards.Release(q.Tenant, q.By)
		} else if !d.shards.Hold(q.Tenant, q.By, holdTime) {
			err = errHeld(q.Tenant)
		}
		r.Revision = d.revision(q.Tenant)
	case askCell:
		r.Revision = d.revision(q.Tenant)
	case askRelocate:
		if r.Relocation = d.relocation(ctx, q.Tenant, q.HandOver); r.Relocation == nil {
			err = errs.New(errs.Unavailable, "%s has not heard from its shards", d.name)
		}
	default:
		return errs.New(errs.Invalid, "%s does not know the question %q: it may be older than %s", d.name, q.What, from)
	}
	return err
}

// revision is that of the record of where a tenant lives.
func (d *desk) revision(tenant string) uint64 {
	c, _ := d.region.layout.Cell(tenant)
	return c.Revision
}

func rolesOf(b []byte) []partition.Role {
	out := make([]partition.Role, 0, len(b))
	for _, r := range b {
		out = append(out, partition.Role(r))
	}
	return out
}

// askOthers asks all other members and returns what came in time, by name; one
// that did not answer has an Error.
func (d *desk) askOthers(ctx context.Context, q *question) map[string]reply {
	out := map[string]reply{}
	if d.region == nil {
		return out
	}
	var names []string
	for _, m := range d.region.members.Snapshot().Members {
		if m.Name != d.name {
			names = append(names, m.Name)
		}
	}
	type said struct {
		from string
		reply
	}
	all := make(chan said, len(names))
	patience := askTime
	if q.What == askSessions {
		patience = sessionsTime
	}
	for _, name := range names {
		if err := d.ask(name, q, func(r reply) { all <- said{name, r} }); err != nil {
			all <- said{name, reply{Error: err.Error()}}
		}
		out[name] = reply{Error: "no answer within " + patience.String()}
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for range names {
		select {
		case s := <-all:
			out[s.from] = s.reply
		case <-timer.C:
			return out
		case <-ctx.Done():
			return out
		}
	}
	return out
}

// ask asks another broker. done is called once, unless there is an error at once.
func (d *desk) ask(to string, q *question, done func(reply)) error {
	text, err := json.Marshal(q)
	if err != nil {
		return err
	}
	return d.region.mesh.Ask(to, "", append([]byte{deskMark}, text...), func(a cluster.Answer) {
		var r reply
		switch {
		case a.Err != nil:
			r.Error = a.Err.Error()
		case a.Body == "":
			r.Error = "it does not know the question: it may be older than this broker"
		default:
			dec := json.NewDecoder(bytes.NewReader([]byte(a.Body)))
			dec.UseNumber()
			if err := dec.Decode(&r); err != nil {
				r = reply{Error: "its answer is not readable: " + err.Error()}
			}
		}
		done(r)
	})
}

// askOne asks another broker and waits. The error is Unavailable.
func (d *desk) askOne(ctx context.Context, to string, q *question) error {
	done := make(chan reply, 1)
	if err := d.ask(to, q, func(r reply) { done <- r }); err != nil {
		return errs.New(errs.Unavailable, "%s does not answer: %w", to, err)
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	select {
	case r := <-done:
		if r.Error != "" {
			return errs.New(errs.Unavailable, "%s: %s", to, r.Error)
		}
		return nil
	case <-ctx.Done():
		return errs.New(errs.Unavailable, "%s does not answer: %w", to, ctx.Err())
	}
}
