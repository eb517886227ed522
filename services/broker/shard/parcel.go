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

// parcel is a publish on its way to another shard. It owns its memory.
type parcel struct {
	tenant *Tenant
	msg    *mqtt.Message
	// crated: the message and the lists are a crate's, and nobody waits.
	crated bool
	// freight holds msg, if that memory is to be used again.
	freight *freight
	// lists are the matching subscriptions of that shard's partitions, direct
	// the members chosen for shared ones.
	lists  []route.Part[*sess]
	direct []direct
	// retain is the partition whose retained message this becomes, if keep.
	retain partition.ID
	keep   bool
	mark   uint64
	// from, and fromID of another broker's session, are for No Local; from is
	// compared, never read.
	from     *sess
	fromID   mqtt.ClientID
	sender   string // the broker that sent it
	expireAt int64
	most     *receivers
	// origin and n number an exact publish; n is 0 for all others.
	// after are the exact ones that partitions must have before this one.
	origin partition.ID
	n      uint64
	after  []cluster.After
	first  bool // nothing of origin was under way before it

	// parts are the partitions of lists, and members those of groups that are to be
	// found, of a publish of another turn in a cluster; gather takes the answer.
	// tenures are those of parts when lists were found.
	parts   []partition.ID
	tenures []uint64
	// partly: something of the Enqueue cannot be taken, so that nothing of it is.
	partly  bool
	members []cluster.Member
	// astray are those of members whose partitions have none, of a publish with a number.
	astray []cluster.Member
	gather *gather
	// again says that a partition is not served here any more, or lacks what comes
	// before it: the origin has to send it to that again.
	again bool

	home *Shard // nil if no answer is wanted
	slot uint32
	gen  uint32
	// waits counts what the answer waits for.
	waits int32
	// reason and hit are the answer.
	reason mqtt.ReasonCode
	hit    bool
}

// direct is a message for one member of a shared subscription.
type direct struct {
	se  *sess
	sub mqtt.Subscription
}

// freight is the memory of a message that goes to other shards at QoS 0 or 1. It
// is used again when every parcel with it has been delivered and no session has
// kept the message.
type freight struct {
	msg  mqtt.Message
	buf  []byte
	left atomic.Int32 // parcels that are not delivered
	kept atomic.Bool
}

var (
	freights = sync.Pool{New: func() any { return new(freight) }}
	parcels  = sync.Pool{New: func() any { return new(parcel) }}
)

// maxPooledBytes is the largest message whose memory is used again.
const maxPooledBytes = 64 << 10

func newFreight(m *mqtt.Message) *freight {
	f := freights.Get().(*freight)
	f.msg, f.buf = m.CloneTo(f.buf[:0])
	f.kept.Store(false)
	return f
}

// delivered says that one parcel was delivered, and nothing refers to its message
// any more unless it is kept.
func (f *freight) delivered() {
	if f.left.Add(-1) > 0 || f.kept.Load() || cap(f.buf) > maxPooledBytes {
		return
	}
	f.msg = mqtt.Message{}
	freights.Put(f)
}

// done gives the parcel's own memory back.
func (p *parcel) done() {
	lists, to := p.lists, p.direct
	clear(lists)
	clear(to)
	clear(p.members)
	clear(p.astray)
	*p = parcel{lists: lists[:0], direct: to[:0], parts: p.parts[:0], tenures: p.tenures[:0], members: p.members[:0], astray: p.astray[:0], after: p.after[:0]}
	parcels.Put(p)
}

// accept does with a parcel what publish does in its own shard.
func (s *Shard) accept(p *parcel) {
	s.serial++
	answered := p.home != nil || p.gather != nil
	if s.set.cluster != nil && !s.resolve(p) {
		s.refuse(p)
		if p.freight != nil {
			p.freight.delivered()
		}
		if answered {
			s.reply(p)
		} else {
			s.dropped(p.tenant, dropUnserved)
		}
		return
	}
	v := view{msg: p.msg, owned: !p.crated, serial: s.serial, expireAt: p.expireAt, from: p.from, fromID: p.fromID, retain: p.msg.Retain, awaited: answered && p.msg.QoS == mqtt.AtLeastOnce, most: p.most}
	begin := len(s.unwritten.list)
	s.judged, s.stored = s.judged[:0], s.stored[:0]
	s.judging = p
	if p.keep && (p.n == 0 || s.firstTime(p.retain, p.origin, p.n)) {
		s.retain(p.tenant, p.retain, p.msg, p.expireAt, p.mark)
	}
	p.hit = len(p.lists)+len(p.direct) > 0
	s.fanOut(&v, p.lists, p.direct, p.origin, p.n)
	for i := range p.astray {
		if s.firstTime(p.astray[i].Partition, p.origin, p.n) {
			s.goOnward(p, &p.astray[i])
		}
	}
	s.judging = nil
	if p.freight != nil {
		if v.kept != nil {
			p.freight.kept.Store(true)
		}
		// What was said to links refers to it until that is handed over.
		s.delivered = append(s.delivered, p.freight)
		p.msg, p.freight = nil, nil
	}
	if !answered {
		if !p.crated {
			p.done()
		}
		return
	}
	for _, u := range s.unwritten.list[begin:] {
		u.parcel = p
		p.waits++
	}
	for _, l := range s.stored {
		s.wait(l, waiter{parcel: p})
		p.waits++
	}
	if p.waits == 0 {
		s.reply(p)
	}
}

// arrived notes that one thing that the answer of a parcel waits for has come.
func (s *Shard) arrived(p *parcel) {
	if p.waits--; p.waits == 0 {
		s.reply(p)
	}
}

// reply answers a parcel.
func (s *Shard) reply(p *parcel) {
	if g := p.gather; g != nil {
		reason, hit, again := p.reason, p.hit, p.again
		p.done()
		g.add(reason, hit, again)
		return
	}
	it := item{kind: itemAnswer, slot: p.slot, gen: p.gen, reason: p.reason, hit: p.hit}
	home := p.home
	p.done()
	if home == s {
		s.answered(it.slot, it.gen, it.reason, it.hit)
		return
	}
	s.leave(home, it)
}
