// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"errors"
	"fmt"

	"github.com/manormq/manor/services/broker/partition"
)

// What crosses to another partition of a queue, which keeps it meanwhile.

// ErrUncommitted is returned by Each while something of the queue cannot be read yet.
var ErrUncommitted = errors.New("queue: something waits that is not committed yet")

// Each calls f for each entry that waits, in the order in which they are taken, and takes
// none. The error is that of f, of the store, or ErrUncommitted, before the first call
// then. An entry that f is given must not be changed.
func (q *Queue) Each(f func(e *Entry) error) error {
	if len(q.tail) > 0 || q.durable && q.committed < q.appended {
		return ErrUncommitted
	}
	for _, e := range q.mem {
		if err := f(e); err != nil {
			return err
		}
	}
	if q.count == int64(len(q.mem)) {
		return nil
	}
	start := partition.KeyU64U64(nil, q.space.part, partition.KindQueue, q.sid, q.stored)
	end := partition.KeyU64U64(nil, q.space.part, partition.KindQueue, q.sid, q.committed)
	it := q.space.store.Scan(start, end)
	defer it.Close()
	for it.Next() {
		_, rest, err := partition.SplitU64(it.Key())
		if err != nil || len(rest) != 8 {
			return fmt.Errorf("queue of session %d: %w", q.sid, partition.ErrBadKey)
		}
		seq := be64(rest)
		if _, gone := q.taken[seq]; gone {
			continue
		}
		e, err := q.space.parse(seq, it.Value())
		if err != nil {
			return fmt.Errorf("queue entry %d of session %d: %w", seq, q.sid, err)
		}
		if err := f(e); err != nil {
			return err
		}
	}
	return it.Err()
}

// passOver bounds how many entries First passes over, each of which it has read.
const passOver = 1000

// First calls f for the entries that are taken next, at most n of them, and takes none; also
// for those that are not committed yet. Entries that the store cannot give back are left out.
// An entry that f is given must not be changed. Those for which f reports false do not count, up to
// passOver of them.
func (q *Queue) First(n int, f func(e *Entry) bool) error {
	over := passOver
	give := func(e *Entry) bool {
		switch {
		case n <= 0:
		case f(e):
			n--
		default:
			if over--; over == 0 {
				n = 0
			}
		}
		return n > 0
	}
	for _, e := range q.mem {
		if !give(e) {
			return nil
		}
	}
	if q.count == int64(len(q.mem)) {
		return nil
	}
	start := partition.KeyU64U64(nil, q.space.part, partition.KindQueue, q.sid, q.stored)
	end := partition.KeyU64U64(nil, q.space.part, partition.KindQueue, q.sid, min(q.committed, q.end))
	it := q.space.store.Scan(start, end)
	defer it.Close()
	for n > 0 && it.Next() {
		_, rest, err := partition.SplitU64(it.Key())
		if err != nil || len(rest) != 8 {
			return fmt.Errorf("queue of session %d: %w", q.sid, partition.ErrBadKey)
		}
		seq := be64(rest)
		if _, gone := q.taken[seq]; gone {
			continue
		}
		if e, err := q.space.parse(seq, it.Value()); err == nil {
			give(e)
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("queue of session %d: %w", q.sid, err)
	}
	for _, e := range q.tail {
		if e.Seq >= q.committed && !give(e) {
			break
		}
	}
	return nil
}

// AppendWhole is AppendEntry for an entry that may refer to a stored body, whose message
// it holds.
func AppendWhole(dst []byte, e *Entry) []byte {
	own := *e
	own.body, own.inside = 0, 0
	return appendEntry(dst, &own)
}
