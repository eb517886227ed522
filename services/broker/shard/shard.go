// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/manormq/manor/infra/fair"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/loop"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/cluster"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/queue"
	"github.com/manormq/manor/services/broker/route"
	"github.com/manormq/manor/services/broker/session"
)

// The states of a shard. Release is a compare-and-set from running, so a post
// that found the shard running (and set more) is never overlooked. A shard rests
// while it has more to do and its worker has not come to do it.
const (
	idle int32 = iota
	running
	more
	resting
)

const (
	// mailboxLimit is how many bytes wait for a shard, in its mailbox or for
	// its commits, before the windows of publishers stand still.
	mailboxLimit = 4 << 20
	// turnItems and turnTime end the turn of a goroutine that came with work of
	// its own: the worker goes on.
	turnItems = 256
	turnTime  = 200 * time.Microsecond
	// sharedWork is how much of what gateways said is done before what came of it
	// is handed over, as Shard.spent counts; aloneWork that where nobody else waits
	// for it, since larger pieces cost less. For sharedTime milliseconds after
	// frames of two tenants came, both are expected.
	sharedWork = 64 << 10
	aloneWork  = 2 << 20
	sharedTime = 1000
	// laneQuantum is what a tenant has done in its turn.
	laneQuantum = 32 << 10
	// innerLimit is how many bytes of what shards leave for each other may wait for
	// one of them before the others take nothing more from gateways.
	innerLimit = 512 << 10
)

// Shard owns the sessions and queues of its partitions. All fields below the
// mailbox belong to whoever runs the turn.
type Shard struct {
	set   *Set
	index int
	state atomic.Int32

	// What shards leave for each other, and commits, come first: it is what
	// follows from frames that had their turn. What gateways said waits in lanes,
	// one for each tenant.
	mail struct {
		sync.Mutex
		items []item
		lanes fair.Queue[item]
	}
	// mailBytes and unsaved bound the mailbox and the uncommitted batches; inner is
	// the part of mailBytes that is in no lane.
	mailBytes, unsaved, inner atomic.Int64
	// awaited says that other shards wait until inner has become less.
	awaited  atomic.Bool
	wake     chan struct{}
	handover chan struct{}
	stats    Stats

	spaces map[partition.ID]*space
	// ceded are partitions that are sealed and not yet left; they are in no other list.
	ceded    map[partition.ID]*space
	sessions map[*Tenant]map[mqtt.ClientID]*sess
	limits   map[link.Limits]*link.Limits
	origins  map[link.Labels]*link.Labels
	passing  uint64
	now      int64
	run      *run
	// spent counts bytes: of what was taken, and of each delivery that came of it.
	spent int
	// latest is the tenant that frames came from last, and mixed when that last
	// became another.
	latest *Tenant
	mixed  int64
	taken  []item

	// through is an entry that is sent without ever being queued.
	through queue.Entry
	// effects is a stack: carrying out the effects of one session may step
	// another.
	effects []*session.Effects
	depth   int

	// ledger is the only one of a broker that is alone. used are those that have
	// something to submit, stored those in which the publish that is being routed has.
	ledger *ledger
	used   []*ledger
	stored []*ledger

	unwritten unwrittens
	// untold are deliveries of stored messages that the store does not know of.
	untold unwrittens
	// inside is the entry that the step in hand sends and writes with its delivery.
	inside *queue.Entry

	// taking are the epochs of partitions that are served as soon as all that the last
	// owner left of them is committed.
	taking map[partition.ID]uint64
	// aims are what the publish that is being routed has for other partitions, of a
	// cluster; streams and flights are those of this shard's partitions. refused are
	// the streams to them of which something was refused, until the next first.
	aims     []aim
	streams  map[streamKey]*stream
	refused  map[arrival]bool
	flights  uint64
	enqueue1 cluster.Enqueue
	sorter   sorter
	holding  *hold
	keeps    keeps
	// handOffSaid is when the log was told last that no more may be handed off.
	handOffSaid int64
	// sure are the revisions of the records for which makeSure has looked at the partitions here.
	sure map[*Tenant]uint64
	// stops are the tenants that move and stop.
	stops map[*Tenant]*stopping

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
	// uncrated is what is being unpacked of a crate.
	uncrated parcel

	// delivered, read and unpacked are memory that is used again when the turn's batches
	// were handed over.
	delivered []*freight
	read      []*bundle
	unpacked  []*crate

	outs      []*out
	serial    uint64
	entries   []*route.Entry[*sess]
	judging   *parcel
	hits      []hit
	judged    []judgement
	bodies    []storedBody
	windows   []*Channel
	tenants   recent // that were granted windows
	deadlines deadlines
	nextDue   atomic.Int64
	// stalled says that windows stand still.
	stalled  atomic.Bool
	notes    notes
	refusals []noteReason    // of the SUBSCRIBE that is being done
	opening  session.Opening // of the Attach that is being done
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

func (s *Shard) wakeUp() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Shard) acquire() bool { return s.state.CompareAndSwap(idle, running) }

// acquireResting is acquire for a shard that rests.
func (s *Shard) acquireResting() bool { return s.state.CompareAndSwap(resting, running) }

// rest lets go of the shard, and has the worker go on. Whoever has resumed it
// meanwhile calls rest in turn, so that the worker may find nothing to do.
func (s *Shard) rest() {
	s.state.Store(resting)
	select {
	case s.handover <- struct{}{}:
	default:
	}
}

// work runs turns for whatever nobody else stands ready to run.
func (s *Shard) work(ctx context.Context) error {
	var yield loop.Yield
	defer yield.Close()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.handover:
			r := runs.Get().(*run)
			for busy := true; busy; {
				yield.Now() // it has no other pause while there is work
				if s.acquireResting() {
					s.turn(nil, nil, r)
				}
				busy = false
				if ctx.Err() == nil {
					select {
					case <-s.handover:
						busy = true
						s.set.next(r, true)
					default:
					}
				}
			}
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
	st.next(r, false)
	runs.Put(r)
}

// next is finish; more says that it is called again very soon.
func (st *Set) next(r *run, more bool) {
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
	left := r.gateways[:0]
	for _, g := range r.gateways {
		if early, ok := g.(link.EarlyFlusher); ok && more {
			early.FlushEarly()
			left = append(left, g)
		} else {
			g.Flush()
		}
	}
	clear(r.gateways[len(left):])
	r.gateways = left
}

// turn runs the shard, which the caller has acquired: what other shards left, then
// frames, then what waits in lanes and has come meanwhile. It lets go of the
// shard.
func (s *Shard) turn(chs []*Channel, frames []link.UpFrame, r *run) {
	s.run = r
	s.now = s.set.now()
	start := time.Now()
	n := s.drain()
	s.direct(chs, frames)
	more, m := s.serve(s.piece())
	for n += m; ; n += m {
		s.end(r)
		s.run = nil
		if !more && s.state.CompareAndSwap(running, idle) {
			return
		}
		s.state.Store(running)
		if n > turnItems || int64(time.Since(start)) > s.set.turnTime {
			s.rest()
			return
		}
		s.run = r
		s.now = s.set.now()
		n += s.drain()
		more, m = s.serve(s.piece())
	}
}

// visit does frames of tenants of whom nothing waits, while the shard rests, and
// leaves all else to the worker. It reports false if there are none, or the shard
// does not rest.
func (s *Shard) visit(chs []*Channel, frames []link.UpFrame, r *run) bool {
	nothing := func(ch *Channel) bool { return ch.lane().waiting.Load() == 0 }
	if !slices.ContainsFunc(chs, nothing) || !s.acquireResting() {
		return false
	}
	s.run, s.now = r, s.set.now()
	s.drain()
	s.direct(chs, frames)
	s.end(r)
	s.run = nil
	s.rest()
	return true
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
