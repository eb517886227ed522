// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"sync/atomic"

	"github.com/manormq/manor/infra/fair"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/route"
)

// Tenant is one tenant at this broker. The counters may be read by anyone.
type Tenant struct {
	id     string
	routes route.Tenant[*sess]
	// cell are the partitions that hold the tenant's sessions and retained
	// messages, held whether nobody of it is let in; see Hold.
	cell atomic.Pointer[cell]
	held atomic.Pointer[closure]
	// plan is how many partitions the plan has, as the last client said that came, and 1;
	// 0 before that.
	plan atomic.Int64

	// mayRetain says that something was retained. A publisher sets it before it
	// matches, a subscriber reads it after its route is there: who reads false
	// has nothing to ask for.
	mayRetain atomic.Bool
	// swept is when expired retained messages were last looked for.
	swept atomic.Int64

	connections, sessions, subscriptions atomic.Int64
	// all counts sessions, with a connection or without, with an expiry or without.
	all                       atomic.Int64
	queueMessages, queueBytes atomic.Int64
	retained, retainedBytes   atomic.Int64
	// quotas are what bounds all of its sessions together, nil until somebody came.
	quotas atomic.Pointer[link.TenantLimits]
	far    elsewhere
	// retaining bounds the retained messages that are set.
	retaining retainRate
	// flying are the flights that are under way, flown those that ever were.
	flying, flown atomic.Int64
	// handedOff are bytes, counted as handOffSize does.
	handedOff atomic.Int64
	// flows count for each shard, whose turn alone writes them.
	flows []flow
	// lanes are what waits for each shard.
	lanes []lane
}

// parts are the tenant's partitions.
func (t *Tenant) parts() []partition.ID { return t.cell.Load().list }

// lane is what gateways said for a tenant's sessions and a shard has not done.
type lane struct {
	flow    fair.Flow[item] // guarded by Shard.mail
	waiting atomic.Int64    // bytes, also of what is taken and not done
	// active is the last epoch in which a channel was granted something, and
	// channels counts those; of the turn.
	active   int64
	channels recent
	// weight is about what a frame was worth lately, with what came of it, as
	// Shard.spent counts.
	weight atomic.Int64
}

// learn hears what some frames were worth. Of the turn.
func (l *lane) learn(spent, frames int) {
	w := l.weight.Load()
	l.weight.Store(w + (int64(spent/frames)-w)/8)
}

// frames is how many are to be done at once: each may go to many, and what is for
// another tenant waits meanwhile.
func (l *lane) frames() int {
	return int(min(max(laneQuantum/max(l.weight.Load(), 1), 1), bundleFrames))
}

// flow is what one shard has taken from a tenant's clients and given to them. It
// fills lines of the processor's cache.
type flow struct {
	in, out atomic.Uint64
	// unhandled are deliveries to sessions without a connection that nobody keeps,
	// unmatched publishes that no subscription matched, queued deliveries that had
	// to wait for the session, own what the broker published for the tenant.
	unhandled, unmatched, queued, own atomic.Uint64
	drops                             [dropReasons]atomic.Uint64
	_                                 [(128 - (6+dropReasons)*8%128) % 128]byte
}

// count adds one to a counter that nobody else writes.
func count(n *atomic.Uint64) { n.Store(n.Load() + 1) }

// Flow is how many messages came from the tenant's clients, and went to them.
func (t *Tenant) Flow() (in, out uint64) {
	for i := range t.flows {
		in += t.flows[i].in.Load()
		out += t.flows[i].out.Load()
	}
	return in, out
}

// Counts are what became of a tenant's messages at this broker.
type Counts struct {
	Received, Sent, Unhandled, Unmatched, Queued, Own uint64
	// Dropped is by reason.
	Dropped map[string]uint64
}

// Counts adds up what the shards counted.
func (t *Tenant) Counts() Counts {
	c := Counts{Dropped: map[string]uint64{}}
	for i := range t.flows {
		f := &t.flows[i]
		c.Received += f.in.Load()
		c.Sent += f.out.Load()
		c.Unhandled += f.unhandled.Load()
		c.Unmatched += f.unmatched.Load()
		c.Queued += f.queued.Load()
		c.Own += f.own.Load()
		for r := range f.drops {
			if n := f.drops[r].Load(); n > 0 {
				c.Dropped[dropNames[r]] += n
			}
		}
	}
	return c
}

// Filters is how many different topic filters lead somewhere, in the whole region.
func (t *Tenant) Filters() int { return t.routes.Len() }

// Usage counts what the tenant holds at this broker.
func (t *Tenant) Usage() link.Usage {
	return link.Usage{
		Connections:        t.connections.Load(),
		PersistentSessions: t.sessions.Load(),
		Subscriptions:      t.subscriptions.Load(),
		QueueMessages:      t.queueMessages.Load(),
		QueueBytes:         t.queueBytes.Load(),
		Retained:           t.retained.Load(),
		RetainedBytes:      t.retainedBytes.Load(),
	}
}

// HandedOff is how many bytes of messages wait here for partitions that could not be
// reached, and were acknowledged.
func (t *Tenant) HandedOff() int64 { return t.handedOff.Load() }

// Offline is how many of the tenant's sessions here have no connection.
func (t *Tenant) Offline() int64 { return max(t.all.Load()-t.connections.Load(), 0) }
