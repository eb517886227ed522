// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"container/heap"

	"github.com/manormq/manor/services/broker/session"
)

// movingTick is how often it is looked whether a tenant has arrived whose sessions have
// something due, in milliseconds.
const movingTick = 1000

// deadlines is a heap of the sessions that have a deadline, by when a Tick does
// something: delayed wills, session expiry, and what a member of a group
// keeps for too long. A session stands in it once, at
// sess.place-1.
type deadlines []*sess

// Len implements heap.Interface.
func (d deadlines) Len() int { return len(d) }

// Less implements heap.Interface.
func (d deadlines) Less(i, j int) bool { return d[i].deadline < d[j].deadline }

// Swap implements heap.Interface.
func (d deadlines) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].place, d[j].place = i+1, j+1
}

// Push implements heap.Interface.
func (d *deadlines) Push(x any) {
	se := x.(*sess)
	*d = append(*d, se)
	se.place = len(*d)
}

// Pop implements heap.Interface.
func (d *deadlines) Pop() any {
	old := *d
	se := old[len(old)-1]
	old[len(old)-1] = nil
	*d = old[:len(old)-1]
	se.place = 0
	return se
}

// due brings the session's place in the heap up to its deadline.
func (s *Shard) due(se *sess) {
	at := se.Deadline()
	if m := se.member; m != nil && m.checkAt != 0 && (at == 0 || m.checkAt < at) {
		at = m.checkAt
	}
	if a := se.awaited; a != nil && (at == 0 || a.until < at) {
		at = a.until
	}
	if se.gone {
		at = 0
	}
	if at == se.deadline {
		return
	}
	se.deadline = at
	switch {
	case at == 0 && se.place > 0:
		heap.Remove(&s.deadlines, se.place-1)
	case at != 0 && se.place > 0:
		heap.Fix(&s.deadlines, se.place-1)
	case at != 0:
		heap.Push(&s.deadlines, se)
	}
}

// schedule says when the ticker has to come back.
func (s *Shard) schedule() {
	if len(s.deadlines) == 0 {
		s.nextDue.Store(0)
		return
	}
	s.nextDue.Store(s.deadlines[0].deadline)
}

// tick does what is due.
func (s *Shard) tick() {
	for len(s.deadlines) > 0 && s.deadlines[0].deadline <= s.now {
		se := s.deadlines[0]
		if se.tenant.moves() { // it would publish
			se.deadline = s.now + movingTick
			heap.Fix(&s.deadlines, 0)
			continue
		}
		if m := se.member; m != nil && m.checkAt != 0 && m.checkAt <= s.now {
			s.checkMember(se)
			s.due(se)
			continue
		}
		if se.awaited != nil && se.awaited.until <= s.now {
			s.unresumed(se)
			continue
		}
		s.step(se, &session.Event{Kind: session.Tick}, nil)
		if se.deadline <= s.now && se.place > 0 {
			// A Tick always moves the deadline; a session that did not would
			// hold the shard for ever.
			se.deadline = 0
			heap.Remove(&s.deadlines, se.place-1)
		}
	}
}
