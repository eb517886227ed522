// SPDX-License-Identifier: Apache-2.0

package metadata

import "context"

// Write makes mutations in one batch and returns at once; it takes their values
// over. done is called when they are durable and the watchers have seen them: with
// nil, with ErrStale or ErrInvalid if some were left out, or with why nothing was
// written. reached is called after a done without error, when every reachable
// member has them too, or Config.Reach has passed. Both may be nil; they are called
// from the goroutine of Run and must not block. After Run has ended reached is not
// called.
func (s *Store) Write(mutations []Mutation, done func(error), reached func()) {
	size := 0
	for _, x := range mutations {
		size += len(x.Key.Space) + len(x.Key.Name) + len(x.Value) + 64
	}
	err := s.put(item{event: Write{Mutations: mutations}, size: size, call: call{done, reached}}, &s.mu.writes)
	if err != nil && done != nil {
		done(err)
	}
}

// Do is a Write that waits until it is durable. When ctx ends before, the outcome
// is open.
func (s *Store) Do(ctx context.Context, mutations ...Mutation) error {
	result := make(chan error, 1)
	s.Write(mutations, func(err error) { result <- err }, nil)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-result:
		return err
	}
}

// Get returns what is seen under key; ok is false if there is nothing.
func (s *Store) Get(key Key) (v Value, ok bool, err error) { return Lookup(s.kv, s.groups, key) }

// Range calls f with all keys of a space until it returns false, in no order that
// means anything.
func (s *Store) Range(space string, f func(Key, Value) bool) error {
	return Scan(s.kv, s.groups, space, f)
}

// RangePrefix is Range of the names that begin with prefix.
func (s *Store) RangePrefix(space, prefix string, f func(Key, Value) bool) error {
	return ScanPrefix(s.kv, s.groups, space, prefix, f)
}

// Watch calls f with all that is in the space, as changes from nothing, and from
// then on with every change, local and remote, in order for each key. f is called
// from the goroutine of Run and must not block; the changes are valid until it
// returns. failed is called instead if the store cannot be read. stop ends the
// calls, soon.
func (s *Store) Watch(space string, f func([]Change), failed func(error)) (stop func()) {
	w := &watcher{space: space, f: f}
	begin := func() {
		if err := s.replay(w); err != nil {
			failed(err)
			return
		}
		s.watchers = append(s.watchers, w)
	}
	if err := s.put(item{run: begin}, nil); err != nil {
		failed(err)
	}
	return func() {
		_ = s.put(item{run: func() { s.unwatch(w) }}, nil)
	}
}

// replayChanges is how many changes are told together at the start of a Watch.
const replayChanges = 1024

func (s *Store) replay(w *watcher) error {
	var changes []Change
	err := s.Range(w.space, func(k Key, v Value) bool {
		changes = append(changes, Change{Key: k, New: &v})
		if len(changes) == replayChanges {
			w.f(changes)
			changes = changes[:0]
		}
		return true
	})
	if err == nil && len(changes) > 0 {
		w.f(changes)
	}
	return err
}

func (s *Store) unwatch(w *watcher) {
	for i, x := range s.watchers {
		if x == w {
			s.watchers = append(s.watchers[:i:i], s.watchers[i+1:]...)
			return
		}
	}
}

// Receive takes a message that the member from has sent, and takes it over. from is
// what the link has proved, not what the message says. If too much waits it is
// dropped; exchanges make good for it.
func (s *Store) Receive(from string, message []byte) {
	_ = s.put(item{event: Received{From: from, Message: message}, size: len(message) + 64}, &s.mu.messages)
}

// Join makes a broker a member, now and after a restart. A member twice is one.
func (s *Store) Join(name string) error { return s.put(item{event: Join{Name: name}}, nil) }

// Told says that all members were told by Join; see the event.
func (s *Store) Told() error { return s.put(item{event: Told{}}, nil) }

// Leave ends the membership of a broker for good; see the event.
func (s *Store) Leave(name string) error { return s.put(item{event: Leave{Name: name}}, nil) }

// Reset gives up all that is stored here; see the event.
func (s *Store) Reset() error { return s.put(item{event: Reset{}}, nil) }

// Synced is Stats.Synced of a turn of which the watchers have heard: they know all that
// it says.
func (s *Store) Synced() bool { return s.synced.Load() }

// MetAll is Stats.MetAll, as Synced is.
func (s *Store) MetAll() bool { return s.metAll.Load() }

// Stats are those after the last turn.
func (s *Store) Stats() Stats { return *s.stats.Load() }

// Members are the names of the members after the last turn, in order, with that of
// this broker.
func (s *Store) Members() []string { return *s.members.Load() }
