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
	set *Set
	mu  sync.Mutex
	run *run // what is owed since the last Flush
	sorter
}

// sorter brings an Enqueue to the shards. It is memory that is used again.
type sorter struct {
	parcels []*parcel // by shard
	found   []*route.Entry[*sess]
}

// Inlet makes one.
func (st *Set) Inlet() *Inlet { return &Inlet{set: st} }

// Enqueue delivers what the other broker sent, once Flush is called. It is that of a
// cluster.Receiver.
func (in *Inlet) Enqueue(e *cluster.Enqueue, answer func(cluster.Answer)) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.run == nil {
		in.run = runs.Get().(*run)
	}
	in.enqueue(in.set, e, answer, in.run)
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
func (x *sorter) enqueue(st *Set, e *cluster.Enqueue, answer func(cluster.Answer), r *run) {
	t := st.Tenant(e.Tenant)
	if x.parcels == nil {
		x.parcels = make([]*parcel, len(st.shards))
	}
	parcels := x.parcels
	defer clear(parcels)
	goods := newFreight(&e.Message)
	again, n := false, int32(0)
	of := func(p partition.ID) *parcel {
		if !st.Serves(p) {
			again = true
			return nil
		}
		i := st.shardOf(p).index
		if parcels[i] == nil {
			n++
			parcels[i] = st.parcel(t, e, goods)
		}
		return parcels[i]
	}
	if len(e.Parts) > 0 {
		x.found = t.routes.AppendMatches(x.found[:0], e.Message.Topic)
		for _, id := range e.Parts {
			pc := of(id)
			if pc == nil {
				continue
			}
			pc.parts = append(pc.parts, id)
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
			pc.keep, pc.retain, pc.mark = true, e.Retain, st.retains.Add(1)
			t.mayRetain.Store(true)
		}
	}
	for _, a := range e.After {
		if pc := parcels[st.shardOf(a.Partition).index]; pc != nil {
			pc.after = append(pc.after, a)
		}
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
			pc.gather = g
			size := goods.msg.Size() + itemOverhead
			st.shards[i].post(item{kind: itemParcel, parcel: pc, size: size}, r)
		}
	}
}

func (st *Set) parcel(t *Tenant, e *cluster.Enqueue, goods *freight) *parcel {
	pc := parcels.Get().(*parcel)
	pc.tenant, pc.msg, pc.freight, pc.fromID = t, &goods.msg, goods, e.From
	pc.origin, pc.n = e.Origin, e.N
	if e.Message.HasExpiry {
		pc.expireAt = st.now() + int64(e.Message.Expiry)*1000
	}
	return pc
}

// resolve finds the members that a parcel of another broker is for. It reports
// false if a partition of the parcel is not served here any more.
func (s *Shard) resolve(p *parcel) bool {
	for _, id := range p.parts {
		if s.spaces[id] == nil {
			return false
		}
	}
	if p.keep && s.spaces[p.retain] == nil {
		return false
	}
	for i := range p.members {
		m := &p.members[i]
		if s.spaces[m.Partition] == nil {
			return false
		}
		if d, ok := s.member(p.tenant, m); ok {
			p.direct = append(p.direct, d)
		} else {
			s.toOther(p, m)
		}
	}
	return true
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

// toOther has a message for a partition in which no member is left go to another.
func (s *Shard) toOther(p *parcel, m *cluster.Member) {
	g := p.tenant.routes.Group(m.Filter, shareRest(m.Filter))
	if g == nil {
		s.dropped(p.tenant, dropNoMember)
		return
	}
	x, _, ok := g.Pick(nil)
	if !ok {
		s.dropped(p.tenant, dropNoMember)
		return
	}
	to := cluster.Member{Filter: m.Filter, Partition: partition.ID(x.Part)}
	if !x.Far {
		to.Partition, to.Client = x.Session.space.id, x.Session.ClientID
	}
	e := &cluster.Enqueue{Tenant: p.tenant.id, From: p.fromID, Members: []cluster.Member{to}, Message: *p.msg}
	if !s.expiry(&e.Message, p.expireAt) {
		s.dropped(p.tenant, dropExpired)
		return
	}
	var done func(cluster.Answer)
	if p.gather != nil {
		p.gather.left.Add(1)
		g := p.gather
		done = func(a cluster.Answer) { g.add(a.Reason, a.Hit, a.Again || a.Err != nil) }
	}
	owner, _ := s.set.cluster.Owner(to.Partition)
	var err error
	switch owner {
	case "":
		err = cluster.ErrDown
	case s.set.cluster.Self():
		s.sorter.enqueue(s.set, e, done, s.run)
	default:
		err = s.set.cluster.Send(owner, e, done)
	}
	if err == nil {
		return
	}
	if done != nil {
		done(cluster.Answer{Err: err})
	} else {
		s.dropped(p.tenant, dropUnserved)
	}
}
