// SPDX-License-Identifier: Apache-2.0

// Package mem is kv.Store in memory, for tests and simulated worlds. It keeps
// two versions, the present one and the one that a power cut would leave, and
// Crash goes back to the latter.
//
// The package owns no goroutine and reads neither clock nor random numbers:
// equal calls give equal stores, down to the shape of the tree.
package mem

import (
	"sync"

	"github.com/manormq/manor/infra/kv"
)

// Store is a kv.Store in memory.
type Store struct {
	mu      sync.RWMutex
	present *node // guarded by mu; nodes never change, so a root is a snapshot
	synced  *node // guarded by mu: what survives Crash
	closed  bool  // guarded by mu
}

var _ kv.Store = (*Store)(nil)

// New returns an empty store.
func New() *Store { return new(Store) }

// Crash does what a power cut does: everything since the last synced Apply is
// gone, and so is whoever had the store open. The store is open again
// afterwards. Iterators from before keep their snapshot. It reports whether anything
// was lost, or may be: two batches that undo each other count too.
func (s *Store) Crash() (lost bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	lost = s.present != s.synced
	s.present, s.closed = s.synced, false
	return lost
}

// Reopen opens a store that was closed, as a process finds it that starts where
// another has ended.
func (s *Store) Reopen() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = false
}

// Get implements kv.Store.
func (s *Store) Get(key []byte) ([]byte, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, kv.ErrClosed
	}
	if n := s.present.get(key); n != nil {
		return append([]byte{}, n.value...), nil
	}
	return nil, kv.ErrNotFound
}

// Scan implements kv.Store.
func (s *Store) Scan(start, end []byte) kv.Iterator {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return &iterator{err: kv.ErrClosed}
	}
	it := &iterator{end: append([]byte(nil), end...), bounded: end != nil}
	it.descend(s.present, start)
	return it
}

// Apply implements kv.Store.
func (s *Store) Apply(b *kv.Batch, sync bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return kv.ErrClosed
	}
	b.Each(func(put bool, key, value []byte) {
		if put {
			s.present = s.present.put(newNode(key, value))
		} else {
			s.present = s.present.remove(key)
		}
	})
	if sync {
		s.synced = s.present
	}
	return nil
}

// Close implements kv.Store. It does not sync: a Crash after it still loses
// what was not synced.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return kv.ErrClosed
	}
	s.closed = true
	return nil
}
