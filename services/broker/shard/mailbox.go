// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"math"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/load"
	"github.com/manormq/manor/infra/mqtt"
)

// itemKind is what an item of a mailbox is.
type itemKind uint8

const (
	itemFrames itemKind = iota + 1
	itemParcel
	itemCrate
	itemAnswer
	itemCommitted
	itemCall
	// itemFence is a call behind all that waits in lanes.
	itemFence
	// itemSent is the answer to flights.
	itemSent
)

// item is one thing left for a shard. It owns its memory.
type item struct {
	kind   itemKind
	lane   *lane // of itemFrames
	at     int64 // of itemFrames: when they came
	reason mqtt.ReasonCode
	hit    bool
	failed bool // of itemCommitted
	slot   uint32
	gen    uint32
	ticket uint64
	size   int
	bundle *bundle
	parcel *parcel
	crate  *crate
	ledger *ledger // of itemCommitted
	batch  *kv.Batch
	sent   *sent
	call   func()
}

const (
	// itemOverhead is about what an item takes in a mailbox, in bytes.
	itemOverhead = 128
	// frameWork is what a frame and a delivery count for besides their bytes.
	frameWork = 128
	// bundleFrames is how many frames are done at once at most.
	bundleFrames = 8
)

// post leaves it for the shard. r notes the shard if nobody runs it; without r
// the shard's worker is woken.
func (s *Shard) post(it item, r *run) {
	it.size += itemOverhead
	s.mailBytes.Add(int64(it.size))
	s.mail.Lock()
	if it.lane != nil {
		it.lane.waiting.Add(int64(it.size))
		s.mail.lanes.Push(&it.lane.flow, it)
	} else {
		s.inner.Add(int64(it.size))
		s.mail.items = append(s.mail.items, it)
	}
	s.mail.Unlock()
	for {
		switch s.state.Load() {
		case idle:
			if r != nil {
				r.noted |= 1 << s.index
			} else {
				s.wakeUp()
			}
			return
		case running:
			if s.state.CompareAndSwap(running, more) {
				return
			}
		case more, resting:
			return
		}
	}
}

// direct does frames at once, but for those of tenants of whom something waits:
// they go behind that.
func (s *Shard) direct(chs []*Channel, frames []link.UpFrame) {
	if len(frames) == 0 {
		return
	}
	held, begin, start := s.held(), 0, s.spent
	most := s.piece()
	for i := range frames {
		if s.sees(chs[i].tenant) {
			most = s.piece()
		}
		if !held && s.spent-start < most && chs[i].lane().waiting.Load() == 0 {
			if begin < i {
				s.postFrames(chs[begin:i], frames[begin:i], s.run)
			}
			s.spent += frames[i].Cost() + frameWork
			s.frame(chs[i], &frames[i])
			begin = i + 1
		}
	}
	if begin < len(frames) {
		s.postFrames(chs[begin:], frames[begin:], s.run)
	}
}

// sees notes that frames of t came, and reports whether the last were another's.
func (s *Shard) sees(t *Tenant) bool {
	if t == s.latest {
		return false
	}
	s.latest, s.mixed = t, s.now
	return true
}

// piece is how much is done at once.
func (s *Shard) piece() int {
	if s.alone() {
		return aloneWork
	}
	return sharedWork
}

// alone reports whether frames came from one tenant only lately.
func (s *Shard) alone() bool { return s.now-s.mixed >= sharedTime }

// held reports whether nothing is to be taken from gateways now, because too much
// of what came of it waits for another shard. That one wakes s.
func (s *Shard) held() bool {
	for _, o := range s.set.shards {
		if o != s && o.inner.Load() > innerLimit {
			o.awaited.Store(true)
			if o.inner.Load() > innerLimit { // else nobody wakes
				return true
			}
		}
	}
	return false
}

// relieved wakes those that wait until less waits for s.
func (s *Shard) relieved() {
	if s.inner.Load() <= innerLimit && s.awaited.Load() && s.awaited.CompareAndSwap(true, false) {
		for _, o := range s.set.shards {
			if o != s {
				// Not a bare wakeUp: o may be at the end of the turn in which it was
				// held, and has to see that there is more.
				o.call(func() {})
			}
		}
	}
}

// drain does all that waits in no lane, and returns how many items that was.
func (s *Shard) drain() int {
	s.mail.Lock()
	s.taken, s.mail.items = s.mail.items, s.taken[:0]
	s.mail.Unlock()
	for i := range s.taken {
		it := &s.taken[i]
		switch it.kind {
		case itemFrames: // is in lanes
		case itemParcel:
			s.accept(it.parcel)
		case itemCrate:
			s.unpack(it.crate)
		case itemAnswer:
			s.answered(it.slot, it.gen, it.reason, it.hit)
		case itemCommitted:
			if it.failed {
				s.lose(it.ledger.space)
			} else {
				s.committed(it.ledger, it.ticket, it.batch)
			}
		case itemSent:
			s.landed(it.sent)
		case itemCall:
			it.call()
		case itemFence:
			s.serve(math.MaxInt)
			it.call()
		}
		s.mailBytes.Add(-int64(it.size))
		s.inner.Add(-int64(it.size))
		*it = item{}
	}
	s.relieved()
	n := len(s.taken)
	if cap(s.taken) > 4096 {
		s.taken = nil
	} else {
		s.taken = s.taken[:0]
	}
	return n
}

// serve does what waits in lanes, up to about so much work. The tenants take turns
// by that. It returns how many items it did, and whether there are more that it
// may do.
func (s *Shard) serve(most int) (more bool, n int) {
	if most < math.MaxInt && s.held() {
		return false, 0
	}
	for start := s.spent; s.spent-start < most; n++ {
		before := s.spent
		s.mail.Lock()
		fresh := s.mail.lanes.Fresh()
		it, f, ok := s.mail.lanes.Next()
		s.mail.Unlock()
		if !ok {
			return false, n
		}
		s.spent += it.size
		if s.sees(it.bundle.chs[0].tenant) {
			if most < math.MaxInt { // else a fence
				most = min(most, s.piece())
			}
		}
		old := s.set.Load() == load.Shed && s.set.now()-it.at > shedAge
		for k := range it.bundle.frames {
			if ch, f := it.bundle.chs[k], &it.bundle.frames[k]; !old || !s.shed(ch, f) {
				s.frame(ch, f)
			}
		}
		s.read = append(s.read, it.bundle)
		it.lane.waiting.Add(-int64(it.size))
		s.mailBytes.Add(-int64(it.size))
		s.mail.Lock()
		it.lane.learn(s.spent-before, len(it.bundle.frames))
		s.mail.lanes.Charge(f, int64(s.spent-before))
		served := fresh && !s.mail.lanes.Fresh()
		s.mail.Unlock()
		if served && most < math.MaxInt {
			return true, n + 1 // what is for those that rarely have something is handed over first
		}
	}
	s.mail.Lock()
	defer s.mail.Unlock()
	return s.mail.lanes.Len() > 0, n
}

// shedAge is how long, in milliseconds, a message at QoS 0 may wait in a lane of a
// broker that is overloaded. Only tenants with more than their turn's worth have
// any that are so old.
const shedAge = 100

// shed drops f if it is a message at QoS 0, and reports whether it was.
func (s *Shard) shed(ch *Channel, f *link.UpFrame) bool {
	if f.Kind != link.UpPublish || f.Message.QoS != mqtt.AtMostOnce || ch.sess == nil {
		return false
	}
	s.stats.QueueIn.Add(1)
	count(&ch.tenant.flows[s.index].in)
	s.consume(ch, f)
	s.drop(ch.sess, dropOverload)
	return true
}

// outgoing is an item on its way to a shard's mailbox.
type outgoing struct {
	to   *Shard
	item item
}

// leave posts it to a shard when this turn ends. What is left for one shard
// keeps its order.
func (s *Shard) leave(to *Shard, it item) {
	s.packing[to.index] = 0
	s.outgoing = append(s.outgoing, outgoing{to, it})
}

// call runs f in a turn of the shard, soon.
func (s *Shard) call(f func()) { s.post(item{kind: itemCall, call: f}, nil) }
