// SPDX-License-Identifier: Apache-2.0

package routes_test

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/services/broker/metadata"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/routes"
)

// shelf is a Store without goroutine: what is written is there when land is called.
type shelf struct {
	keys  map[string]metadata.Value
	watch func([]metadata.Change)
	todo  []func()
	wrote []string
}

func (s *shelf) Get(k metadata.Key) (metadata.Value, bool, error) {
	v, ok := s.keys[k.Name]
	return v, ok, nil
}

func (s *shelf) Range(_ string, f func(metadata.Key, metadata.Value) bool) error {
	return s.RangePrefix("", "", f)
}

func (s *shelf) RangePrefix(_, prefix string, f func(metadata.Key, metadata.Value) bool) error {
	var names []string
	for name := range s.keys {
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		if !f(metadata.Key{Space: routes.Space, Name: name}, s.keys[name]) {
			break
		}
	}
	return nil
}

func (s *shelf) Watch(_ string, f func([]metadata.Change), _ func(error)) func() {
	s.watch = f
	return func() {}
}

func (s *shelf) Write(mutations []metadata.Mutation, done func(error), reached func()) {
	s.todo = append(s.todo, func() {
		for _, m := range mutations {
			k, _ := routes.ParseKey(m.Key.Name)
			s.wrote = append(s.wrote, fmt.Sprint(k.Partition, " ", k.Filter, " ", m.Delete))
			s.set(m.Key.Name, metadata.Value{Rank: m.Rank, Bytes: m.Value}, m.Delete)
		}
		done(nil)
		if reached != nil {
			reached()
		}
	})
}

// set has a broker, this or another one, write a key.
func (s *shelf) set(name string, v metadata.Value, gone bool) {
	c := metadata.Change{Key: metadata.Key{Space: routes.Space, Name: name}, New: &v}
	if old, ok := s.keys[name]; ok {
		c.Old = &old
	}
	if delete(s.keys, name); gone {
		c.New = nil
	} else {
		s.keys[name] = v
	}
	s.watch([]metadata.Change{c})
}

func (s *shelf) land() {
	todo := s.todo
	s.todo = nil
	for _, do := range todo {
		do()
	}
}

// Stepped by a clock of its own, Routes does what Run does: it writes, waits for what it is told to wait
// for, and heals, in the same order each time.
func TestStep(t *testing.T) {
	var all [][]string
	for range 5 {
		now := time.Unix(1, 0)
		store := &shelf{keys: map[string]metadata.Value{}}
		sink := &broker{plain: map[routes.Key]bool{}, groups: map[routes.Key]routes.GroupState{}}
		r := routes.New(routes.Config{Store: store, Sink: sink, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return now }})
		step := func() time.Time { r.Step(); store.land(); return r.Step() }
		step()

		reached := 0
		r.Add("acme", "a", 7, 1, func() { reached++ })
		if r.Step(); reached != 0 || sink.knows() != 0 {
			t.Fatalf("reached %d times, %d known, before the store has it", reached, sink.knows())
		}
		now = now.Add(250 * time.Millisecond)
		if r.Step(); reached != 1 {
			t.Fatal("who waits was not told after 250 ms of its clock")
		}
		store.land()
		if r.Step(); reached != 1 || sink.knows() != 1 {
			t.Fatalf("reached %d times, %d known, expected 1 and 1", reached, sink.knows())
		}

		// A former owner left 20 keys in each of 3 partitions, and deletes 20 late.
		for i := range 60 {
			store.set(routes.Key{Tenant: "acme", Filter: fmt.Sprint("old/", i), Partition: partition.ID(i % 3)}.Name(), metadata.Value{Rank: 1}, false)
		}
		has := func(_, filter string) bool { return strings.HasPrefix(filter, "mine/") }
		for p := range partition.ID(3) {
			r.Gaining(p, 2)
			for i := range 7 {
				store.set(routes.Key{Tenant: "acme", Filter: fmt.Sprint("mine/", i), Partition: p}.Name(), metadata.Value{}, true)
			}
			r.Gained(p, 2, has)
		}
		due := step()
		if want := now.Add(200 * time.Millisecond); due.After(want) {
			t.Fatalf("the next step is due %v later than the search for leftovers", due.Sub(want))
		}
		now = now.Add(200 * time.Millisecond)
		for range 3 {
			step()
		}
		if got := sink.filters(); len(got) != 1+21 || slices.ContainsFunc(got, func(f string) bool { return strings.HasPrefix(f, "old/") }) {
			t.Errorf("routes %v, expected 21 of the owner and one of another partition", got)
		}
		if s := r.Stats(); s.Healed != 81 || s.Pending != 0 {
			t.Errorf("%+v", s)
		}
		all = append(all, store.wrote)
	}
	for _, wrote := range all[1:] {
		if !slices.Equal(wrote, all[0]) {
			t.Fatalf("written in one order\n%v\nand in another\n%v", all[0], wrote)
		}
	}
}
