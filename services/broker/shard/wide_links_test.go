// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"slices"
	"sync"
	"time"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/services/broker/cluster"
)

// Send implements Cluster.
func (n *wideNode) Send(to string, e *cluster.Enqueue, over cluster.LinkID, done func(cluster.Answer)) (cluster.LinkID, error) {
	w := n.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if n.deadLocked() || w.nodeLocked(to).deadLocked() {
		return cluster.NoLink, cluster.ErrDown
	}
	l := n.links[to]
	if l == nil {
		l = &wideLink{id: 1}
		l.queue = newWideQueue(func(r *wideRequest) { w.deliver(n, l, r) })
		n.links[to] = l
	}
	switch {
	case l.down || w.split:
		return cluster.NoLink, cluster.ErrDown
	case over != cluster.AnyLink && over != l.id:
		return cluster.NoLink, cluster.ErrLost
	}
	r := &wideRequest{to: w.nodeLocked(to), e: *e, done: done}
	r.e.Message = e.Message.Clone()
	r.e.Parts, r.e.Members, r.e.After = slices.Clone(e.Parts), slices.Clone(e.Members), slices.Clone(e.After)
	if done != nil {
		l.waiting = append(l.waiting, r)
	}
	l.queue.put(r)
	return l.id, nil
}

// deliver brings a request to the broker that it was sent to. What is lost on the way
// there is not delivered; what is lost on the way back is.
func (w *wide) deliver(from *wideNode, l *wideLink, r *wideRequest) {
	w.mu.Lock()
	n := r.to
	pause := time.Duration(0)
	if w.rand.IntN(8) == 0 {
		pause = time.Duration(w.rand.IntN(1500)) * time.Microsecond
	}
	gone := r.gone || n.deadLocked()
	set := n.set
	w.mu.Unlock()
	time.Sleep(pause)
	if gone {
		return
	}
	var answer func(cluster.Answer)
	if r.done != nil {
		answer = func(a cluster.Answer) {
			w.mu.Lock()
			if r.lost {
				w.mu.Unlock()
				return
			}
			r.lost = true
			l.waiting = slices.DeleteFunc(l.waiting, func(x *wideRequest) bool { return x == r })
			w.mu.Unlock()
			r.done(a)
		}
	}
	in := set.Inlet(from.name)
	in.Enqueue(&r.e, answer)
	in.Flush()
}

// cutLocked loses the link: all that waits for an answer gets none, and the last of it
// does not arrive.
func (w *wide) cutLocked(l *wideLink) (lost []*wideRequest) {
	arrive := w.rand.IntN(len(l.waiting) + 1)
	for i, r := range l.waiting {
		r.lost, r.gone = true, i >= arrive
	}
	lost, l.waiting = l.waiting, nil
	l.id++
	return lost
}

// Ask implements Cluster.
func (n *wideNode) Ask(to string, q *link.Query, done func(*link.Answer, error)) error {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	o := n.w.nodeLocked(to)
	if n.deadLocked() || o.deadLocked() || n.mute {
		return cluster.ErrDown
	}
	own, set, dead := *q, o.set, o.dead
	go func() {
		answers := make(chan *link.Answer, 1)
		go func() { answers <- set.AskHere(&own) }()
		select {
		case a := <-answers:
			done(a, nil)
		case <-dead:
			done(nil, cluster.ErrLost)
		}
	}()
	return nil
}

// wideQueue does what is put into it, in order, in a goroutine of its own.
type wideQueue[T any] struct {
	mu     sync.Mutex
	items  []T
	busy   bool
	closed bool
	do     func(T)
}

func newWideQueue[T any](do func(T)) *wideQueue[T] { return &wideQueue[T]{do: do} }

func (q *wideQueue[T]) put(x T) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	q.items = append(q.items, x)
	if !q.busy {
		q.busy = true
		go q.run()
	}
}

func (q *wideQueue[T]) run() {
	for {
		q.mu.Lock()
		if len(q.items) == 0 || q.closed {
			q.busy = false
			q.mu.Unlock()
			return
		}
		x := q.items[0]
		q.items = q.items[1:]
		q.mu.Unlock()
		q.do(x)
	}
}

func (q *wideQueue[T]) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
}
