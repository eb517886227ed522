// SPDX-License-Identifier: Apache-2.0

// Package fair shares one worker among flows, such as tenants, that have work
// waiting: deficit round robin (Shreedhar and Varghese, "Efficient Fair Queuing
// using Deficit Round-Robin", 1995) in the form of RFC 8290, section 4.2. A flow
// that was idle comes before those that always have something, for one quantum,
// so that who uses little waits for no more than the piece of work that is under
// way. Turns bound what is done at once where there are several workers, and give flows their
// turns there. It knows nothing
// of what the work is.
package fair

// Queue holds what waits, by flow. The order within a flow is kept. Its methods
// must not be called concurrently.
type Queue[T any] struct {
	// Quantum is what a flow may use in its turn, in whatever unit Charge has;
	// above 0.
	Quantum int64

	fresh, old list[T]
	flows, n   int
}

// Flow is one of those that share. The zero value is ready for use with one Queue.
type Flow[T any] struct {
	items  []T
	first  int // of items
	credit int64
	// busy: it is in a list.
	busy bool
	next *Flow[T]
}

// Len is how many items of the flow wait.
func (f *Flow[T]) Len() int { return len(f.items) - f.first }

// Busy reports whether the flow is one of Queue.Flows.
func (f *Flow[T]) Busy() bool { return f.busy }

// list is flows in a row.
type list[T any] struct{ head, tail *Flow[T] }

func (l *list[T]) add(f *Flow[T]) {
	f.next = nil
	if l.tail == nil {
		l.head = f
	} else {
		l.tail.next = f
	}
	l.tail = f
}

func (l *list[T]) drop() *Flow[T] {
	f := l.head
	if l.head = f.next; l.head == nil {
		l.tail = nil
	}
	f.next = nil
	return f
}

// Len is how many items wait.
func (q *Queue[T]) Len() int { return q.n }

// Fresh reports whether an item comes first because its flow was idle.
func (q *Queue[T]) Fresh() bool {
	f := q.fresh.head
	return f != nil && (f.Len() > 0 || f.next != nil)
}

// Flows is how many flows have something waiting, or had until just now.
func (q *Queue[T]) Flows() int { return q.flows }

// Push adds v behind what else waits in f.
func (q *Queue[T]) Push(f *Flow[T], v T) {
	f.items = append(f.items, v)
	q.n++
	if f.busy {
		return
	}
	// What it owes from before stays: nobody gains by being idle for a moment.
	f.busy, f.credit = true, min(f.credit, 0)+q.Quantum
	q.flows++
	q.fresh.add(f)
}

// Next takes the item whose turn it is, and says of which flow it is. What it
// cost is to be charged to that soon. ok is false if nothing waits.
func (q *Queue[T]) Next() (v T, f *Flow[T], ok bool) {
	for {
		from := &q.fresh
		if from.head == nil {
			if from = &q.old; from.head == nil {
				return v, nil, false
			}
		}
		f = from.head
		switch {
		case f.credit <= 0:
			f.credit += q.Quantum
			q.old.add(from.drop())
		case f.Len() > 0:
			v = f.take()
			q.n--
			return v, f, true
		case from == &q.fresh:
			q.old.add(from.drop()) // once round before it is idle again
		default:
			from.drop()
			f.busy = false
			q.flows--
		}
	}
}

// keepItems is the largest memory for items that an empty flow keeps.
const keepItems = 4096

func (f *Flow[T]) take() (v T) {
	var none T
	v, f.items[f.first] = f.items[f.first], none
	f.first++
	switch {
	case f.first < len(f.items):
		if f.first > keepItems && f.first > len(f.items)/2 {
			n := copy(f.items, f.items[f.first:])
			clear(f.items[n:])
			f.items, f.first = f.items[:n], 0
		}
	case cap(f.items) > keepItems:
		f.items, f.first = nil, 0
	default:
		f.items, f.first = f.items[:0], 0
	}
	return v
}

// Charge takes what an item of f has cost from what f may use.
func (q *Queue[T]) Charge(f *Flow[T], cost int64) { f.credit -= cost }
