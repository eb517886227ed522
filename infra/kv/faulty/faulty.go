// SPDX-License-Identifier: Apache-2.0

// Package faulty is a kv.Store that fails by script, to show what its user
// does when the disk does. It owns no goroutine and stores nothing itself.
package faulty

import (
	"errors"
	"sync/atomic"

	"github.com/manormq/manor/infra/kv"
)

// ErrDisk is a fault for scripts that need no particular one.
var ErrDisk = errors.New("faulty: the disk failed by script")

// Fault says whether the n-th call, counted from 1, fails, and with what. A nil
// Fault never fails. It may be called concurrently.
type Fault func(n int64) error

// At fails call n with err.
func At(n int64, err error) Fault { return Between(n, n, err) }

// From fails call n and all after it with err, as a full disk does.
func From(n int64, err error) Fault { return Between(n, 1<<62, err) }

// Between fails the calls first to last with err.
func Between(first, last int64, err error) Fault {
	return func(n int64) error {
		if n < first || n > last {
			return nil
		}
		return err
	}
}

// Script says which calls fail. A call that fails does not reach the store,
// except that one of Torn is carried out and then reported as failed: the
// caller cannot know.
type Script struct {
	Get, Apply, Torn Fault
	// Scan ends the n-th Scan before its first entry.
	Scan Fault
}

// Store is a kv.Store that fails by script.
type Store struct {
	inner              kv.Store
	script             Script
	gets, applies, scs atomic.Int64
}

var _ kv.Store = (*Store)(nil)

// New returns inner with the faults of script. Closing the one closes the
// other.
func New(inner kv.Store, script Script) *Store { return &Store{inner: inner, script: script} }

func (f Fault) at(n int64) error {
	if f == nil {
		return nil
	}
	return f(n)
}

// Get implements kv.Store.
func (s *Store) Get(key []byte) ([]byte, error) {
	if err := s.script.Get.at(s.gets.Add(1)); err != nil {
		return nil, err
	}
	return s.inner.Get(key)
}

// Scan implements kv.Store.
func (s *Store) Scan(start, end []byte) kv.Iterator {
	if err := s.script.Scan.at(s.scs.Add(1)); err != nil {
		return failed{err}
	}
	return s.inner.Scan(start, end)
}

// Apply implements kv.Store.
func (s *Store) Apply(b *kv.Batch, sync bool) error {
	n := s.applies.Add(1)
	if err := s.script.Apply.at(n); err != nil {
		return err
	}
	if err := s.inner.Apply(b, sync); err != nil {
		return err
	}
	return s.script.Torn.at(n)
}

// Close implements kv.Store.
func (s *Store) Close() error { return s.inner.Close() }

// failed is an iterator that has nothing but an error.
type failed struct{ err error }

func (failed) Next() bool    { return false }
func (failed) Key() []byte   { return nil }
func (failed) Value() []byte { return nil }
func (f failed) Err() error  { return f.err }
func (failed) Close()        {}
