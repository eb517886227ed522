// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"encoding/binary"
	"slices"
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
//
// What a partition had published before it moved is known to the broker that sent it
// until it has arrived, and what was not sent is in the outbox, which the next owner
// counts when it takes the partition up. So each broker says for which partitions it
// answers, and as long as nobody does for one it is asked again.

const (
	// keepsWait is for how long that is waited for: a partition may be away for long.
	keepsWait = 250 * time.Millisecond
	// keepsAgain is the pause before it is asked again for what nobody answered; each
	// is twice as long as the one before.
	keepsAgain = 5 * time.Millisecond
)

// keeps are the messages of a shard's publishers that are to be retained elsewhere and
// have not arrived there. It belongs to the turn.
type keeps struct {
	round uint64
	under map[keepOf]int
	// flying are those of under that have been sent and not answered, by round: they may
	// arrive also when their partition is lost here.
	flying map[uint64]int
	waits  []keepsWaiter // by round
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

// keepDeparts notes that a flight was sent.
func (s *Shard) keepDeparts(f *flight) {
	if f.aim.keep && f.keeps {
		if s.keeps.flying == nil {
			s.keeps.flying = make(map[uint64]int)
		}
		s.keeps.flying[f.keepOf.round]++
	}
}

// keepLands notes that a flight that was sent is answered, one way or the other.
func (s *Shard) keepLands(f *flight) {
	if !f.aim.keep || !f.keeps {
		return
	}
	if n := s.keeps.flying[f.keepOf.round]; n > 1 {
		s.keeps.flying[f.keepOf.round] = n - 1
		return
	}
	delete(s.keeps.flying, f.keepOf.round)
	s.tellKeeps()
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

// forgetKeeps forgets those of a partition that is not served here any more, but for what
// is under way.
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
		for round := range s.keeps.flying {
			if round <= w.round {
				return
			}
		}
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

// answerKeeps answers a QueryKept: it returns when all that was matched here by now has
// arrived, or after keepsWait, and says in Next which partitions were served here all the
// time, in two bytes each.
func (st *Set) answerKeeps() *link.Answer {
	tenures := make([]uint64, len(st.serving))
	for p := range tenures {
		tenures[p] = st.tenure(partition.ID(p))
	}
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
	t := time.NewTimer(st.keepsWait)
	defer t.Stop()
	select {
	case <-all:
	case <-t.C:
	}
	var served []byte
	for p, n := range tenures {
		if n&1 != 0 && n == st.tenure(partition.ID(p)) {
			served = binary.BigEndian.AppendUint16(served, uint16(p))
		}
	}
	return &link.Answer{Found: true, Next: string(served)}
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

// askKeeps asks all brokers, this one too, and waits for them: until somebody has answered
// for each partition, or for keepsWait.
func (st *Set) askKeeps() {
	answered := make([]bool, len(st.serving))
	end := time.Now().Add(st.keepsWait)
	for pause := keepsAgain; ; pause *= 2 {
		st.askKeepsOnce(answered)
		left := time.Until(end)
		if !slices.Contains(answered, false) || left <= 0 {
			return
		}
		time.Sleep(min(pause, left))
	}
}

// askKeepsOnce asks all brokers and notes for which partitions they answer.
func (st *Set) askKeepsOnce(answered []bool) {
	note := func(a *link.Answer) {
		for b := []byte(a.Next); len(b) >= 2; b = b[2:] {
			if p := int(binary.BigEndian.Uint16(b)); p < len(answered) {
				answered[p] = true
			}
		}
	}
	brokers := st.cluster.Brokers()
	answers := make(chan *link.Answer, len(brokers))
	left := 0
	for _, to := range brokers {
		err := st.cluster.Ask(to, &link.Query{Kind: link.QueryKept}, func(a *link.Answer, err error) {
			if err != nil {
				a = &link.Answer{}
			}
			answers <- a
		})
		if err == nil { // else it cannot be reached
			left++
		}
	}
	note(st.answerKeeps())
	t := time.NewTimer(2 * st.keepsWait)
	defer t.Stop()
	for ; left > 0; left-- {
		select {
		case a := <-answers:
			note(a)
		case <-t.C:
			return
		}
	}
}
