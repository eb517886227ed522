// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"container/heap"

	"github.com/manormq/manor/services/broker/session"
)

// deadlines is a heap of sessions by when a Tick does something: delayed wills
// and session expiry. An entry whose session has another deadline by now is
// skipped, not searched for.
type deadlines []due

type due struct {
	at int64
	se *sess
}

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].at < d[j].at }
func (d deadlines) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }

// Push implements heap.Interface.
func (d *deadlines) Push(x any) { *d = append(*d, x.(due)) }

// Pop implements heap.Interface.
func (d *deadlines) Pop() any {
	old := *d
	x := old[len(old)-1]
	old[len(old)-1] = due{}
	*d = old[:len(old)-1]
	return x
}

// due puts the session's deadline into the heap if it has changed.
func (s *Shard) due(se *sess) {
	at := se.Deadline()
	if at == se.deadline {
		return
	}
	se.deadline = at
	if at != 0 {
		heap.Push(&s.deadlines, due{at, se})
	}
}

// schedule says when the ticker has to come back.
func (s *Shard) schedule() {
	if len(s.deadlines) == 0 {
		s.nextDue.Store(0)
		return
	}
	s.nextDue.Store(s.deadlines[0].at)
}

// tick does what is due.
func (s *Shard) tick() {
	for len(s.deadlines) > 0 && s.deadlines[0].at <= s.now {
		d := heap.Pop(&s.deadlines).(due)
		if d.se.gone || d.se.deadline != d.at {
			continue
		}
		d.se.deadline = 0
		s.step(d.se, &session.Event{Kind: session.Tick}, nil)
	}
}
