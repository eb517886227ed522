// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/queue"
	"github.com/manormq/manor/services/broker/route"
	"github.com/manormq/manor/services/broker/session"
)

// The states of a shard. Release is a compare-and-set from running, so a post
// that found the shard running (and set more) is never overlooked.
const (
	idle int32 = iota
	running
	more
)

const (
	// mailboxLimit is how many bytes wait for a shard, in its mailbox or for
	// its commits, before the windows of publishers stand still.
	mailboxLimit = 4 << 20
	// turnItems and turnTime end the turn of a goroutine that came with work of
	// its own: the worker goes on.
	turnItems = 256
	turnTime  = 200 * time.Microsecond
)

// Shard owns the sessions and queues of its partitions. All fields below the
// mailbox belong to whoever runs the turn.
type Shard struct {
	set   *Set
	index int
	state atomic.Int32

	mail struct {
		sync.Mutex
		items []item
	}
	// mailBytes and unsaved bound the mailbox and the uncommitted batches.
	mailBytes, unsaved atomic.Int64
	wake               chan struct{}
	handover           chan struct{}
	stats              Stats

	spaces   map[partition.ID]*space
	sessions map[*Tenant]map[mqtt.ClientID]*sess
	limits   map[link.Limits]*link.Limits
	origins  map[link.Labels]*link.Labels
	passing  uint64
	now      int64
	run      *run
	taken    []item

	dirty []*space

	// through is an entry that is sent without ever being queued.
	through queue.Entry
	// effects is a stack: carrying out the effects of one session may step
	// another.
	effects []*session.Effects
	depth   int

	batch   *kv.Batch
	ticket  uint64 // of the open batch
	touched []*sess
	commits []commit
	waiters []waiter
	first   int // of waiters

	unwritten unwrittens

	fans    []fan
	pending []pending
	free    []uint32

	// outgoing is what this turn leaves for other shards (and for this one's
	// next turn). It is posted once the turn's batch is with the committer,
	// which writes in that order: so no other shard's commit can be on disk
	// without the one that it came from.
	outgoing []outgoing
	// packing has for each shard where in outgoing, counted from 1, the crate is
	// that nothing was left after; 0 if there is none.
	packing []int

	// delivered, read and unpacked are memory that is used again when the turn's batches
	// were handed over.
	delivered []*freight
	read      []*bundle
	unpacked  []*crate

	outs      []*out
	serial    uint64
	entries   []*route.Entry[*sess]
	hits      []hit
	judged    []judgement
	bodies    []storedBody
	windows   []*Channel
	deadlines deadlines
	nextDue   atomic.Int64
	// stalled says that windows stand still.
	stalled  atomic.Bool
	keyBuf   []byte
	valueBuf []byte
}

// run is what a goroutine owes after its turns: shards that it left work for,
// and gateways to flush.
type run struct {
	noted    uint64
	gateways []link.Gateway
}

var runs = sync.Pool{New: func() any { return new(run) }}

// itemKind is what an item of a mailbox is.
type itemKind uint8

const (
	itemFrames itemKind = iota + 1
	itemParcel
	itemCrate
	itemAnswer
	itemCommitted
	itemCall
)

// item is one thing left for a shard. It owns its memory.
type item struct {
	kind   itemKind
	reason mqtt.ReasonCode
	hit    bool
	slot   uint32
	gen    uint32
	ticket uint64
	size   int
	bundle *bundle
	parcel *parcel
	crate  *crate
	batch  *kv.Batch
	call   func()
}

// itemOverhead is about what an item takes in a mailbox, in bytes.
const itemOverhead = 128

// post leaves it for the shard. r notes the shard if nobody runs it; without r
// the shard's worker is woken.
func (s *Shard) post(it item, r *run) {
	it.size += itemOverhead
	s.mailBytes.Add(int64(it.size))
	s.mail.Lock()
	s.mail.items = append(s.mail.items, it)
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
		case more:
			return
		}
	}
}

func (s *Shard) wakeUp() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Shard) acquire() bool { return s.state.CompareAndSwap(idle, running) }

// work runs turns for whatever nobody else stands ready to run.
func (s *Shard) work(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.handover:
			r := runs.Get().(*run)
			s.turn(nil, nil, r)
			s.set.finish(r)
		case <-s.wake:
			r := runs.Get().(*run)
			r.noted |= 1 << s.index
			s.set.finish(r)
		}
	}
}

// finishRounds is how often finish goes round the shards: parcels, answers to
// them, and what follows from those.
const finishRounds = 4

// finish runs the shards that r noted and flushes the gateways. Others may keep
// the shards busy for ever, so what is noted after a few rounds goes to the
// workers: the sockets wait for nobody.
func (st *Set) finish(r *run) {
	for round := 0; r.noted != 0; round++ {
		for i, s := range st.shards {
			if r.noted&(1<<i) == 0 {
				continue
			}
			r.noted &^= 1 << i
			if round >= finishRounds {
				s.wakeUp()
			} else if s.acquire() {
				s.turn(nil, nil, r)
			}
		}
	}
	for i, g := range r.gateways {
		g.Flush()
		r.gateways[i] = nil
	}
	r.gateways = r.gateways[:0]
	runs.Put(r)
}

// turn runs the shard, which the caller has acquired: the mailbox, then frames,
// then what has come meanwhile. It lets go of the shard.
func (s *Shard) turn(chs []*Channel, frames []link.UpFrame, r *run) {
	s.run = r
	s.now = s.set.now()
	start := time.Now()
	n := s.drain()
	for i := range frames {
		s.frame(chs[i], &frames[i])
	}
	for {
		s.end(r)
		s.run = nil
		if s.state.CompareAndSwap(running, idle) {
			return
		}
		s.state.Store(running)
		if n > turnItems || time.Since(start) > turnTime {
			select {
			case s.handover <- struct{}{}:
				return
			default:
			}
		}
		s.run = r
		s.now = s.set.now()
		n += s.drain()
	}
}

// drain takes everything out of the mailbox and does it.
func (s *Shard) drain() int {
	s.mail.Lock()
	s.taken, s.mail.items = s.mail.items, s.taken[:0]
	s.mail.Unlock()
	for i := range s.taken {
		it := &s.taken[i]
		switch it.kind {
		case itemFrames:
			for i := range it.bundle.frames {
				s.frame(it.bundle.chs[i], &it.bundle.frames[i])
			}
			s.read = append(s.read, it.bundle)
		case itemParcel:
			s.accept(it.parcel)
		case itemCrate:
			s.unpack(it.crate)
		case itemAnswer:
			s.answered(it.slot, it.gen, it.reason, it.hit)
		case itemCommitted:
			s.committed(it.ticket, it.batch)
		case itemCall:
			it.call()
		}
		s.mailBytes.Add(-int64(it.size))
		*it = item{}
	}
	n := len(s.taken)
	if cap(s.taken) > 4096 {
		s.taken = nil
	} else {
		s.taken = s.taken[:0]
	}
	return n
}

// end closes a turn: the batch goes to the committer, what was said to links
// is handed over, and windows are granted.
func (s *Shard) end(r *run) {
	s.grantWindows()
	s.deferWrites()
	s.submit()
	for i := range s.outgoing {
		s.outgoing[i].to.post(s.outgoing[i].item, r)
		s.outgoing[i] = outgoing{}
	}
	s.outgoing = s.outgoing[:0]
	clear(s.packing)
	for _, o := range s.outs {
		o.hand(r)
	}
	s.reuse()
	s.schedule()
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
