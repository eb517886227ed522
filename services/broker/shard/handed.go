// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"encoding/binary"
	"log/slog"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/manormq/manor/infra/topic"
	"github.com/manormq/manor/infra/wire"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/queue"
	"github.com/manormq/manor/services/broker/retain"
	"github.com/manormq/manor/services/broker/route/share"
)

// A partition keeps what it is handed of sessions as it came, where nobody looks, and takes
// it up when the tenant is Arriving: by then the partitions that it came from have
// forgotten it. So of two partitions, also of one shard, one has the session.

// readAgain is when what was handed is read again that could not be.
const readAgain = time.Second

// TakeHanded takes what appendHand has made, and calls reply once, by any goroutine, when
// it is committed here, or with false if it is not taken: the partition is not served here,
// or the record of the tenant that is known here is another one. b is not changed.
func (st *Set) TakeHanded(b []byte, reply func(ok bool)) {
	r := wire.Reader{Data: b}
	version := r.U8()
	tenant, revision, to := r.String(), r.U64(), partition.ID(r.U16())
	pieces := make([]portion, r.Length(7))
	for i := range pieces {
		pieces[i] = portion{kind: r.U8(), name: r.String(), index: r.U16(), of: r.U16(), data: r.Bytes()}
	}
	if r.Bad || version != recordVersion || int(to) >= len(st.serving) || tenant == "" || len(tenant) > 255 {
		st.log.Warn("another broker hands over what this one cannot read; it may be of a later version", slog.String("tenant", tenant))
		reply(false)
		return
	}
	t, s := st.Tenant(tenant), st.shardOf(to)
	s.call(func() {
		p, c := s.spaces[to], t.cell.Load()
		if p == nil || p.ceding != nil || c.stage != Leaving || c.revision != revision {
			reply(false)
			return
		}
		s.keepCell(t, p)
		s.keepCourse(t, p, &courseOf{revision: revision, course: Onward}, nil) // else nothing was handed over
		s.stored = s.stored[:0]
		for i := range pieces {
			x := &pieces[i]
			if x.kind == pieceRetained {
				if !s.retainHanded(t, p, x.data) {
					reply(false)
					return
				}
				continue
			}
			s.batch(p).Put(handedKey(p.id, t.id, x.name, x.index), append(binary.BigEndian.AppendUint16(nil, x.of), x.data...))
		}
		left, lost := len(s.stored)+1, false
		one := func() {
			// What others know of a partition that was lost before its commit counts for nothing.
			if left--; left == 0 && !lost {
				reply(true)
			}
		}
		for _, l := range s.stored { // what waits for other brokers to know
			s.wait(l, waiter{after: one})
		}
		s.stored = s.stored[:0]
		s.wait(p.ledger, waiter{after: one, lost: func() {
			lost = true
			reply(false)
		}})
	})
}

func handedKey(p partition.ID, tenant, name string, index uint16) []byte {
	return binary.BigEndian.AppendUint16(partition.KeyNamed(nil, p, partition.KindHanded, tenant, name), index)
}

// retainHanded retains what wrapRetained has made, unless something newer is. It reports
// false if it cannot be read.
func (s *Shard) retainHanded(t *Tenant, p *space, b []byte) bool {
	if len(b) < 22 {
		return false
	}
	m, err := queue.ParseMessage(b[22:])
	if err != nil {
		return false
	}
	parseFacts(b[16:22], m)
	m.HasExpiry = false
	r := &retain.Retained{Message: *m, ExpireAt: int64(binary.BigEndian.Uint64(b)), StoredAt: int64(binary.BigEndian.Uint64(b[8:]))}
	old := p.retain.Get(t.id, m.Topic)
	if old != nil && old.StoredAt > r.StoredAt {
		return true
	}
	t.mayRetain.Store(true)
	p.retain.Put(t.id, r, s.batch(p))
	if old == nil {
		t.retained.Add(1)
		t.retainedBytes.Add(int64(m.Size()))
	} else {
		t.retainedBytes.Add(int64(m.Size()) - int64(old.Message.Size()))
	}
	s.tellRetained(t, p)
	return true
}

// arrive has the partitions of this shard take up what they were handed of a tenant that is
// Arriving, or has arrived.
func (s *Shard) arrive(t *Tenant) {
	c := t.cell.Load()
	if c.stage == Leaving {
		return
	}
	for _, id := range s.both(c) {
		if p := s.spaces[id]; p != nil {
			s.arriveIn(t, c, p)
		}
	}
}

// arriveAll has a partition that was restored take up what its last owner was handed and
// had not taken up.
func (s *Shard) arriveAll(p *space) {
	if s.set.cluster == nil {
		return
	}
	tenants := make(map[string]bool)
	if err := s.scan(p, partition.KindHanded, func(key, _ []byte) error {
		tenant, _, err := partition.SplitNamed(key)
		tenants[tenant] = true
		return err
	}); err != nil {
		s.set.log.Error("what a partition was handed cannot be read from the store", slog.Int("partition", int(p.id)), slog.Any("error", err))
	}
	for t := range p.cells {
		tenants[t.id] = true
	}
	for _, id := range slices.Sorted(maps.Keys(tenants)) {
		t := s.set.Tenant(id)
		if c := t.cell.Load(); c.stage != Leaving {
			s.arriveIn(t, c, p)
		}
	}
}

// handedTo is what a partition was handed of a tenant and has not taken up, by name: all, or
// about most bytes of it; a nil one lacks a piece. more says that there is more.
func (s *Shard) handedTo(t *Tenant, p *space, most int) (all map[string][]byte, keys [][]byte, more bool, err error) {
	type parts struct{ of, n int }
	all = make(map[string][]byte)
	have := make(map[string]parts)
	size, open := 0, 0 // of names some pieces of which were read
	start := partition.KeyNamed(nil, p.id, partition.KindHanded, t.id, "")
	it := s.set.store.Scan(start, append(slices.Clone(start), 0xFF, 0xFF, 0xFF, 0xFF, 0xFF))
	defer it.Close()
	for it.Next() {
		if size >= most && open == 0 {
			more = true
			break
		}
		_, name, err := partition.SplitNamed(it.Key())
		v := it.Value()
		if err != nil || len(name) < 2 || len(v) < 2 {
			return nil, nil, false, partition.ErrBadKey
		}
		name = name[:len(name)-2]
		all[name] = append(all[name], v[2:]...) // indexes rise
		x := have[name]
		if x.n == 0 {
			open++
		}
		if x.of, x.n = int(binary.BigEndian.Uint16(v)), x.n+1; x.n == x.of {
			open--
		}
		have[name] = x
		keys = append(keys, slices.Clone(it.Key()))
		size += len(v)
	}
	for name, x := range have {
		if x.n != x.of {
			all[name] = nil
		}
	}
	return all, keys, more, it.Err()
}

// arriveIn has a partition take up what it was handed of a tenant, a piece after the other,
// so that other tenants have their turns.
func (s *Shard) arriveIn(t *Tenant, c *cell, p *space) {
	if p.ceding != nil || p.arriving[t] {
		return // its next owner does; or it goes on
	}
	if c.stage == Settled {
		s.arriveSome(t, c, p, &hold{}, math.MaxInt)
		return
	}
	h := &hold{}
	if p.cells[t] == c.revision && p.stopped[t] != c.revision {
		s.tellAgain(t, p, h) // its last owner has begun to take up
	}
	s.arriveSome(t, c, p, h, s.set.hands.most)
}

// tellAgain has the other brokers know of all routes of a tenant in a partition: who told
// them before may have lost it before they did.
func (s *Shard) tellAgain(t *Tenant, p *space, h *hold) {
	s.holding = h
	defer func() { s.holding = nil }()
	var all []*sess
	for _, head := range s.sessions[t] {
		if head.space == p {
			all = append(all, head.all()...)
		}
	}
	s.orderSessions(all)
	said := make(map[string]bool)
	for _, se := range all {
		for _, sub := range se.Subscriptions() {
			if _, _, shared := topic.CutShare(sub.Filter); !shared && !said[sub.Filter] {
				said[sub.Filter] = true
				s.set.cluster.AddRoute(t.id, sub.Filter, p.id, p.epoch, s.onRoutes())
			}
		}
		s.eachGroup(se, func(_ *share.Group[*sess], key string) {
			if !said[key] {
				said[key] = true
				s.tellGroup(se, key)
			}
		})
	}
}

func (s *Shard) arriveSome(t *Tenant, c *cell, p *space, h *hold, most int) {
	all, keys, more, err := s.handedTo(t, p, most)
	if err != nil {
		s.set.log.Error("what a partition was handed cannot be read from the store, and its tenant does not go on",
			slog.String("tenant", t.id), slog.Int("partition", int(p.id)), slog.Any("error", err))
		s.after(readAgain, func() {
			if s.spaces[p.id] == p && p.ceding == nil && t.cell.Load() == c {
				s.arriveSome(t, c, p, h, most)
			}
		})
		return
	}
	if len(keys) == 0 && (c.stage == Settled || p.stopped[t] == c.revision) {
		return
	}
	s.holding = h
	var made []*sess
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if se, ok := s.takeUpSession(t, p, name, all[name]); !ok {
			s.set.log.Error("a session that another partition has handed over cannot be read, and is lost",
				slog.String("tenant", t.id), slog.String("client_id", name), slog.Int("partition", int(p.id)))
			s.stats.dropped(dropUnreadable)
		} else if se != nil {
			made = append(made, se)
		}
	}
	s.holding = nil
	for _, key := range keys {
		s.batch(p).Delete(key)
	}
	s.keepCell(t, p) // the next owner is to know that this one has begun
	// Until that is committed the pieces are read again by whoever looks.
	if p.arriving == nil {
		p.arriving = make(map[*Tenant]bool)
	}
	p.arriving[t] = true
	s.wait(p.ledger, waiter{after: func() {
		delete(p.arriving, t)
		switch {
		case p.ceding != nil:
		case t.cell.Load() != c:
			s.arrive(t)
		case more:
			s.arriveSome(t, c, p, h, most)
		case h.left == 0:
			p.stop(t, c.revision)
		default:
			h.w = &waiter{after: func() { p.stop(t, c.revision) }}
		}
	}})
	if t.moves() {
		return
	}
	for _, se := range made {
		if !se.gone && se.head() && se.awaited == nil {
			s.loseConnection(se)
		}
	}
}
