// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"context"
	"fmt"
)

// Codec turns the values of a space into bytes and back. Decode may keep views of
// what it is given; it returns an error for what Encode never wrote.
type Codec[T any] struct {
	Encode func(dst []byte, v T) []byte
	Decode func(b []byte) (T, error)
}

// Space is a key space of a Store with values of one type. It may be used
// concurrently.
type Space[T any] struct {
	store *Store
	name  string
	codec Codec[T]
}

// NewSpace returns the space with this name, 1 to 255 bytes, in s.
func NewSpace[T any](s *Store, name string, codec Codec[T]) *Space[T] {
	return &Space[T]{s, name, codec}
}

// Item is a value of a space.
type Item[T any] struct {
	Name  string
	Value T
	// Rank is the epoch or revision; see Value.
	Rank uint64
}

// Update is a change in a space. Without Old the name is new, without New it is
// deleted.
type Update[T any] struct {
	Name     string
	Old, New *Item[T]
}

// Get returns what is seen under name; ok is false if there is nothing.
func (s *Space[T]) Get(name string) (item Item[T], ok bool, err error) {
	v, ok, err := s.store.Get(Key{s.name, name})
	if err != nil || !ok {
		return Item[T]{}, false, err
	}
	p, err := s.item(name, &v)
	if err != nil {
		return Item[T]{}, false, err
	}
	return *p, true, nil
}

// Put is the Mutation that sets name, for Store.Write and Store.Do. rank is the
// epoch of who writes, or 0 for the next revision.
func (s *Space[T]) Put(name string, v T, rank uint64) Mutation {
	return Mutation{Key: Key{s.name, name}, Value: s.codec.Encode(nil, v), Rank: rank}
}

// Delete is the Mutation that deletes name; rank as in Put.
func (s *Space[T]) Delete(name string, rank uint64) Mutation {
	return Mutation{Key: Key{s.name, name}, Delete: true, Rank: rank}
}

// Do makes mutations of this and other spaces of the Store, and waits until they
// are durable.
func (s *Space[T]) Do(ctx context.Context, mutations ...Mutation) error {
	return s.store.Do(ctx, mutations...)
}

// Range calls f with all of the space until it returns false, in no order that
// means anything. It ends with an error at the first value that does not decode.
func (s *Space[T]) Range(f func(Item[T]) bool) error {
	var bad error
	err := s.store.Range(s.name, func(k Key, v Value) bool {
		p, err := s.item(k.Name, &v)
		if err != nil {
			bad = err
			return false
		}
		return f(*p)
	})
	if err != nil {
		return err
	}
	return bad
}

// Watch is Store.Watch with values of the type. Values that do not decode, of a
// later version perhaps, are passed to failed and count as not there.
func (s *Space[T]) Watch(f func([]Update[T]), failed func(error)) (stop func()) {
	return s.store.Watch(s.name, func(changes []Change) {
		updates := make([]Update[T], 0, len(changes))
		for _, c := range changes {
			u := Update[T]{Name: c.Key.Name}
			u.Old, _ = s.item(c.Key.Name, c.Old) // it was reported when it came
			var err error
			if u.New, err = s.item(c.Key.Name, c.New); err != nil {
				failed(err)
			}
			if u.Old != nil || u.New != nil {
				updates = append(updates, u)
			}
		}
		if len(updates) > 0 {
			f(updates)
		}
	}, failed)
}

func (s *Space[T]) item(name string, v *Value) (*Item[T], error) {
	if v == nil {
		return nil, nil
	}
	x, err := s.codec.Decode(v.Bytes)
	if err != nil {
		return nil, fmt.Errorf("metadata %q %q: %w", s.name, name, err)
	}
	return &Item[T]{name, x, v.Rank}, nil
}
