// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"sync"
	"sync/atomic"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/route"
)

// parcel is a publish on its way to another shard. It owns its memory.
type parcel struct {
	tenant *Tenant
	msg    *mqtt.Message
	// crated: the parcel and its message are a crate's, and nobody waits.
	crated bool
	// freight holds msg, if that memory is to be used again.
	freight *freight
	// lists are the matching subscriptions of that shard's partitions, direct
	// the members chosen for shared ones.
	lists  []route.Part[*sess]
	direct []direct
	// retain is the partition whose retained message this becomes, if keep.
	retain   partition.ID
	keep     bool
	mark     uint64
	from     *sess // for No Local; compared, never read
	expireAt int64
	// origin and n number an exact publish; n is 0 for all others.
	origin partition.ID
	n      uint64

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
	*p = parcel{lists: lists[:0], direct: to[:0]}
	parcels.Put(p)
}

// accept does with a parcel what publish does in its own shard.
func (s *Shard) accept(p *parcel) {
	s.serial++
	v := view{msg: p.msg, owned: !p.crated, serial: s.serial, expireAt: p.expireAt, from: p.from, retain: p.msg.Retain, awaited: p.home != nil && p.msg.QoS == mqtt.AtLeastOnce}
	begin, stored := len(s.unwritten.list), false
	s.judged = s.judged[:0]
	if p.keep && (p.n == 0 || s.firstTime(p.retain, p.origin, p.n)) {
		s.retain(p.tenant, p.retain, p.msg, p.expireAt, p.mark)
		stored = true
	}
	p.hit = len(p.lists)+len(p.direct) > 0
	if s.fanOut(&v, p.lists, p.direct, p.origin, p.n) {
		stored = true
	}
	if p.freight != nil {
		if v.kept != nil {
			p.freight.kept.Store(true)
		}
		// What was said to links refers to it until that is handed over.
		s.delivered = append(s.delivered, p.freight)
		p.msg, p.freight = nil, nil
	}
	if p.home == nil {
		if !p.crated {
			p.done()
		}
		return
	}
	for _, u := range s.unwritten.list[begin:] {
		u.parcel = p
		p.waits++
	}
	if stored || p.n != 0 {
		s.wait(waiter{parcel: p})
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
	it := item{kind: itemAnswer, slot: p.slot, gen: p.gen, reason: p.reason, hit: p.hit}
	home := p.home
	p.done()
	if home == s {
		s.answered(it.slot, it.gen, it.reason, it.hit)
		return
	}
	s.leave(home, it)
}
