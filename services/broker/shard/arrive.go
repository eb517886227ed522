// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"sync"
	"sync/atomic"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/cluster"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/route"
)

// gather collects what the shards answer to one Enqueue.
type gather struct {
	left   atomic.Int32
	reason atomic.Uint32
	hit    atomic.Bool
	again  atomic.Bool
	answer func(cluster.Answer)
}

// add takes the answer of one shard. The last one is answered with all.
func (g *gather) add(reason mqtt.ReasonCode, hit, again bool) {
	if reason.Failed() {
		g.reason.Store(uint32(reason))
	}
	if hit {
		g.hit.Store(true)
	}
	if again {
		g.again.Store(true)
	}
	if g.left.Add(-1) == 0 {
		g.answer(cluster.Answer{Reason: mqtt.ReasonCode(g.reason.Load()), Hit: g.hit.Load(), Again: g.again.Load()})
	}
}

// Inlet is where what one other broker sends comes in. Its methods may be called
// concurrently.
type Inlet struct {
	set  *Set
	from string
	mu   sync.Mutex
	run  *run // what is owed since the last Flush
	sorter
}

// sorter brings an Enqueue to the shards. It is memory that is used again.
type sorter struct {
	parcels []*parcel // by shard
	found   []*route.Entry[*sess]
	tenures []uint64 // of the parts
}

// Inlet makes that of the broker from.
func (st *Set) Inlet(from string) *Inlet { return &Inlet{set: st, from: from} }

// Enqueue delivers what the other broker sent, once Flush is called. It is that of a
// cluster.Receiver.
func (in *Inlet) Enqueue(e *cluster.Enqueue, answer func(cluster.Answer)) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.run == nil {
		in.run = runs.Get().(*run)
	}
	in.enqueue(in.set, in.from, e, answer, in.run)
}

// Flush has what came since the last Flush done.
func (in *Inlet) Flush() {
	in.mu.Lock()
	r := in.run
	in.run = nil
	in.mu.Unlock()
	if r != nil {
		in.set.finish(r)
	}
}

// enqueue delivers what another broker sent, or another turn of this one; r is as
// for post.
func (x *sorter) enqueue(st *Set, from string, e *cluster.Enqueue, answer func(cluster.Answer), r *run) {
	t := st.Tenant(e.Tenant)
	if x.parcels == nil {
		x.parcels = make([]*parcel, len(st.shards))
	}
	parcels := x.parcels
	defer clear(parcels)
	goods := newFreight(&e.Message)
	most := t.fanOutHere(e)
	again, n := false, int32(0)
	partly := false
	st.arriving.RLock() // until all is in the mailboxes
	defer st.arriving.RUnlock()
	of := func(p partition.ID) *parcel {
		// What somebody waits for is refused by the turn, in the order of its stream.
		if answer == nil && !st.Serves(p) || int(p) >= len(st.serving) {
			again = true
			return nil
		}
		partly = partly || answer != nil && (st.closing[p] || !st.Serves(p))
		i := st.shardOf(p).index
		if parcels[i] == nil {
			n++
			parcels[i] = st.parcel(t, from, e, goods)
			parcels[i].most = most
		}
		return parcels[i]
	}
	if len(e.Parts) > 0 {
		x.tenures = x.tenures[:0]
		for _, id := range e.Parts {
			x.tenures = append(x.tenures, st.tenure(id)) // before it is matched
		}
		x.found = t.routes.AppendMatches(x.found[:0], e.Message.Topic)
		for i, id := range e.Parts {
			pc := of(id)
			if pc == nil {
				continue
			}
			pc.parts, pc.tenures = append(pc.parts, id), append(pc.tenures, x.tenures[i])
			for _, entry := range x.found {
				for _, part := range entry.Parts() {
					if part.ID == id && !part.Far() {
						pc.lists = append(pc.lists, part)
					}
				}
			}
		}
		clear(x.found)
	}
	for _, m := range e.Members {
		if pc := of(m.Partition); pc != nil {
			pc.members = append(pc.members, m)
		}
	}
	if e.Keep {
		if pc := of(e.Retain); pc != nil {
			pc.keep, pc.retain = true, e.Retain // without a mark: it was matched long ago
			t.mayRetain.Store(true)
		}
	}
	for _, a := range e.After {
		if pc := parcels[st.shardOf(a.Partition).index]; pc != nil {
			pc.after = append(pc.after, a)
		}
	}
	if answer == nil && again {
		st.shards[0].stats.dropped(dropUnserved) // it does not come again
	}
	if n == 0 {
		freights.Put(goods)
		if answer != nil {
			answer(cluster.Answer{Again: again})
		}
		return
	}
	goods.left.Store(n)
	var g *gather
	if answer != nil {
		g = &gather{answer: answer}
		g.left.Store(n)
		g.again.Store(again)
	}
	for i, pc := range parcels {
		if pc != nil {
			if answer == nil && st.shards[i].inner.Load() > mailboxLimit {
				// Nothing else holds the sender back.
				st.shards[i].stats.dropped(dropOverload)
				goods.delivered()
				pc.done()
				continue
			}
			pc.gather, pc.partly = g, partly
			size := goods.msg.Size() + itemOverhead
			st.shards[i].post(item{kind: itemParcel, parcel: pc, size: size}, r)
		}
	}
}

func (st *Set) parcel(t *Tenant, from string, e *cluster.Enqueue, goods *freight) *parcel {
	pc := parcels.Get().(*parcel)
	pc.tenant, pc.msg, pc.freight, pc.fromID = t, &goods.msg, goods, e.From
	pc.sender = from
	pc.origin, pc.n, pc.first = e.Origin, e.N, e.First
	if e.Message.HasExpiry {
		pc.expireAt = st.now() + int64(e.Message.Expiry)*1000
	}
	return pc
}

// resolve finds the members that a parcel of another broker is for. It reports
// false if a partition of the Enqueue is known not to be served when it comes, so that
// what comes again was not there in part; or if a partition of the parcel is not served here, or not any more as when it was
// matched, or has refused what came before.
func (s *Shard) resolve(p *parcel) bool {
	if p.partly {
		return false
	}
	for i, id := range p.parts {
		if s.set.tenure(id) != p.tenures[i] {
			return false
		}
	}
	ok := true
	s.eachPart(p, func(id partition.ID) {
		key := arrival{p.sender, streamKey{p.origin, id}}
		if p.first {
			delete(s.refused, key)
		}
		ok = ok && s.spaces[id] != nil && (p.gather == nil || !s.refused[key])
	})
	if !ok {
		return false
	}
	for i := range p.members {
		m := &p.members[i]
		switch d, ok := s.member(p.tenant, m); {
		case ok:
			p.direct = append(p.direct, d)
		case p.n != 0:
			p.astray = append(p.astray, *m)
		default:
			s.toOther(p, m)
		}
	}
	return true
}

// eachPart calls f for the partitions of a parcel of another broker.
func (s *Shard) eachPart(p *parcel, f func(partition.ID)) {
	for _, id := range p.parts {
		f(id)
	}
	for i := range p.members {
		f(p.members[i].Partition)
	}
	if p.keep {
		f(p.retain)
	}
}

// refuse has a parcel of another broker come again, and what follows it wait for that.
func (s *Shard) refuse(p *parcel) {
	p.again = true
	if p.gather != nil {
		s.eachPart(p, func(id partition.ID) { s.refused[arrival{p.sender, streamKey{p.origin, id}}] = true })
	}
}

// arrival is a stream at its other end. Two brokers have the same one while its origin
// moves.
type arrival struct {
	sender string
	streamKey
}

// member is the session that a message for a member of a group is for: the one
// that was chosen, else another of its partition.
func (s *Shard) member(t *Tenant, m *cluster.Member) (direct, bool) {
	if m.Client != "" {
		if se := s.session(t, m.Client); se != nil {
			for _, sub := range se.Subscriptions() {
				if sub.Filter == m.Filter {
					return direct{se, sub}, true
				}
			}
		}
	}
	if g := t.routes.Group(m.Filter, shareRest(m.Filter)); g != nil {
		if in := g.In(uint16(m.Partition)); in != nil {
			if x, _, ok := in.Pick(nil); ok {
				return direct{x.Session, x.Sub}, true
			}
		}
	}
	return direct{}, false
}
