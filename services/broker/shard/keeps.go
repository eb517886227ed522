// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/services/broker/partition"
)

// A message that is to be retained flies to the partition of its topic while those that
// match fly to theirs. A subscription that is made meanwhile is not among those, and
// would not find it retained yet. So before retained messages are asked for every broker
// is asked to say when all has arrived that it had matched by then and is to be retained:
// what is matched later finds the subscription. The message comes live or retained, or,
// in that moment, both; never neither.

// keepsWait is for how long that is waited for: a partition may be away for long.
const keepsWait = 250 * time.Millisecond

// keeps are the messages of a shard's publishers that are to be retained elsewhere and
// have not arrived there. It belongs to the turn.
type keeps struct {
	round uint64
	under map[keepOf]int
	waits []keepsWaiter // by round
}

// keepOf is in which round a message was matched, and in which partition it was
// published.
type keepOf struct {
	round  uint64
	origin partition.ID
}

type keepsWaiter struct {
	round uint64
	done  func()
}

// keeping notes that d, of partition origin, has a flight that is to be retained.
func (s *Shard) keeping(d *dispatch, origin partition.ID, aims []aim) {
	for i := range aims {
		if aims[i].keep {
			d.keeps, d.keepOf = true, keepOf{s.keeps.round, origin}
			if s.keeps.under == nil {
				s.keeps.under = make(map[keepOf]int)
			}
			s.keeps.under[d.keepOf]++
			return
		}
	}
}

// keptThere notes that a flight has arrived.
func (s *Shard) keptThere(f *flight) {
	if !f.aim.keep || !f.keeps {
		return
	}
	f.keeps = false
	if n := s.keeps.under[f.keepOf]; n > 1 {
		s.keeps.under[f.keepOf] = n - 1
	} else {
		delete(s.keeps.under, f.keepOf)
		s.tellKeeps()
	}
}

// forgetKeeps forgets those of a partition that is not served here any more.
func (s *Shard) forgetKeeps(origin partition.ID) {
	for k := range s.keeps.under {
		if k.origin == origin {
			delete(s.keeps.under, k)
		}
	}
	s.tellKeeps()
}

// awaitKeeps calls done when all that was matched by now has arrived.
func (s *Shard) awaitKeeps(done func()) {
	s.keeps.waits = append(s.keeps.waits, keepsWaiter{s.keeps.round, done})
	s.keeps.round++
	s.tellKeeps()
}

// tellKeeps tells those that wait for nothing any more.
func (s *Shard) tellKeeps() {
	for len(s.keeps.waits) > 0 {
		w := s.keeps.waits[0]
		for k := range s.keeps.under {
			if k.round <= w.round {
				return
			}
		}
		s.keeps.waits = s.keeps.waits[1:]
		w.done()
	}
	s.keeps.waits = nil
}

// awaitKeeps returns when all that was matched here by now has arrived, or after
// keepsWait.
func (st *Set) awaitKeeps() {
	var left atomic.Int32
	left.Store(int32(len(st.shards)))
	all := make(chan struct{})
	for _, s := range st.shards {
		s.call(func() {
			s.awaitKeeps(func() {
				if left.Add(-1) == 0 {
					close(all)
				}
			})
		})
	}
	t := time.NewTimer(keepsWait)
	defer t.Stop()
	select {
	case <-all:
	case <-t.C:
	}
}

// settling has all brokers asked, once for all that want it at a time. The zero value is
// ready; settle may be called concurrently.
type settling struct {
	mu   sync.Mutex
	busy bool     // guarded by mu
	next []func() // guarded by mu
}

// settle calls done when all brokers that can be reached have said that what they had
// matched before has arrived, or have had the time for that.
func (st *Set) settle(done func()) {
	x := &st.settling
	x.mu.Lock()
	defer x.mu.Unlock()
	x.next = append(x.next, done)
	if !x.busy {
		x.busy = true
		go st.runSettling()
	}
}

func (st *Set) runSettling() {
	x := &st.settling
	for {
		x.mu.Lock()
		dones := x.next
		x.next, x.busy = nil, len(dones) > 0
		x.mu.Unlock()
		if len(dones) == 0 {
			return
		}
		st.askKeeps()
		for _, done := range dones {
			done()
		}
	}
}

// askKeeps asks all brokers, this one too, and waits for them.
func (st *Set) askKeeps() {
	brokers := st.cluster.Brokers()
	answers := make(chan struct{}, len(brokers))
	left := 0
	for _, to := range brokers {
		err := st.cluster.Ask(to, &link.Query{Kind: link.QueryKept}, func(*link.Answer, error) { answers <- struct{}{} })
		if err == nil { // else it cannot be reached
			left++
		}
	}
	st.awaitKeeps()
	t := time.NewTimer(2 * keepsWait)
	defer t.Stop()
	for ; left > 0; left-- {
		select {
		case <-answers:
		case <-t.C:
			return
		}
	}
}
