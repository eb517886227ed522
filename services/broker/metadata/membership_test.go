// SPDX-License-Identifier: Apache-2.0

package metadata_test

import (
	"slices"
	"testing"
	"time"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/infra/kv/mem"
	"github.com/manormq/manor/services/broker/metadata"
)

// An empty broker gets all, in pages, also what the others have long forgotten the
// dots of.
func TestJoin_EmptyBrokerFetchesAll(t *testing.T) {
	w := newWorld(t, 1, 2)
	w.nodes[0].put("v", names("k", 200)...)
	w.nodes[0].del(names("k", 50)...)
	w.settle()
	x := w.add("new")
	if x.m.Stats().Synced {
		t.Error("a broker that has compared itself with nobody says that it has")
	}
	for _, n := range w.nodes {
		x.step(metadata.Join{Name: n.name})
		n.step(metadata.Join{Name: "new"})
	}
	w.settle()
	w.check()
	if s := x.m.Stats(); s.Fetches != 2 || s.Objects != 150 || !s.Synced {
		t.Errorf("the new broker fetched %d of 2 groups, has %d objects of 150, synced %v", s.Fetches, s.Objects, s.Synced)
	}
	if got := x.m.Members(); !slices.Equal(got, []string{"b0", "b1", "new"}) {
		t.Errorf("the members are %q", got)
	}
}

// A broker is synced when it has compared itself with all that it can reach, or was told
// that there is no other member: that it has heard of none says nothing.
func TestSynced(t *testing.T) {
	w := newWorld(t, 1, 3)
	w.nodes[0].put("v", names("k", 50)...)
	w.settle()
	n := w.nodes[2]
	n.loseDisk()
	w.split[[2]string{"b0", "b2"}] = true
	for range 10 {
		w.now = w.now.Add(time.Second)
		for _, x := range w.nodes {
			w.tick(x)
		}
		for len(w.wire) > 0 {
			w.deliver()
		}
	}
	if s := n.m.Stats(); s.Synced || s.Objects != 50 {
		t.Errorf("%d objects of 50, synced %v, with one of two members that it reaches", s.Objects, s.Synced)
	}
	w.settle()
	if !n.m.Stats().Synced {
		t.Error("not synced, with all members")
	}

	lone := newWorld(t, 1, 0).add("lone")
	lone.w.tick(lone)
	if lone.m.Stats().Synced {
		t.Error("alone before it was told who the members are")
	}
	lone.step(metadata.Told{})
	if !lone.m.Stats().Synced {
		t.Error("not synced, and there is nobody else")
	}
}

// Who has lost its disk has not met all while a member is away, however many others it has met:
// those may have lost theirs too.
func TestMetAll(t *testing.T) {
	w := newWorld(t, 1, 3)
	w.nodes[0].put("v", names("k", 50)...)
	w.settle()
	for _, n := range w.nodes[1:] {
		n.loseDisk()
		n.step(metadata.Told{})
	}
	n := w.nodes[2]
	meet := func(names ...string) metadata.Stats {
		for range 10 {
			w.now = w.now.Add(time.Second)
			for _, x := range w.nodes {
				if slices.Contains(names, x.name) {
					x.step(metadata.Tick{Reachable: names})
				}
			}
			for len(w.wire) > 0 {
				w.deliver()
			}
		}
		return n.m.Stats()
	}
	if s := meet("b1", "b2"); !s.Synced || s.MetAll || s.Objects != 0 {
		t.Errorf("synced %v, met all %v, %d objects, with another that has lost its disk; expected true, false, 0", s.Synced, s.MetAll, s.Objects)
	}
	if s := meet("b0", "b1", "b2"); !s.MetAll || s.Objects != 50 {
		t.Errorf("met all %v, %d objects of 50, with the one that has them", s.MetAll, s.Objects)
	}
}

// Whoever comes back is asked at once, each of several, and not when its turn comes.
func TestExchange_WithAllThatComeBack(t *testing.T) {
	w := newWorld(t, 1, 4)
	w.settle()
	n := w.nodes[0]
	n.step(metadata.Tick{})
	asked := map[string]bool{}
	for range 4 {
		w.tick(n)
		for len(w.wire) > 0 {
			for _, p := range w.wire {
				if p.from == n.name {
					asked[p.to] = true
				}
			}
			w.deliver()
		}
	}
	if len(asked) != 3 {
		t.Errorf("asked %v without any time passing, of three that have come back", asked)
	}
}

// While an empty broker fetches, the others write on and messages get lost.
func TestJoin_FetchAmongWrites(t *testing.T) {
	w := newWorld(t, 1, 2)
	w.nodes[0].put("v", names("k", 100)...)
	w.settle()
	x := w.add("new")
	for _, n := range w.nodes {
		x.step(metadata.Join{Name: n.name})
		n.step(metadata.Join{Name: "new"})
	}
	for i := range 60 {
		if i%3 == 0 {
			w.nodes[1].del(names("k", 100)[i])
			w.nodes[0].put("more", names("more", i+1)...)
		}
		w.calm = i%10 > 0
		w.run(1)
	}
	w.settle()
	w.check()
}

// What is written while pages come is not taken for known because the last page
// was made after it.
func TestJoin_FetchKnowsWhatTheFirstPageKnew(t *testing.T) {
	w := newWorld(t, 1, 1)
	n := w.nodes[0]
	n.put("old", names("k", 100)...)
	w.settle()
	x := w.add("new")
	x.step(metadata.Join{Name: "b0"})
	n.step(metadata.Join{Name: "new"})
	w.tick(n)
	w.tick(x)
	for len(x.view) == 0 && len(w.wire) > 0 {
		w.deliver()
	}
	if len(x.view) == 0 || len(x.view) > 90 {
		t.Fatalf("after the first page with objects there are %d, want some of 100", len(x.view))
	}
	w.split[[2]string{"b0", "new"}] = true
	n.put("new", names("k", 100)...)
	clear(w.split)
	w.settle()
	w.check()
	if s := x.m.Stats(); s.Differed > 0 {
		t.Errorf("the fetch left what had to be mended: %+v", s)
	}
}

func TestDiskLost_ComesBackUnderANewActor(t *testing.T) {
	w := newWorld(t, 1, 3)
	n := w.nodes[0]
	n.put("v", names("k", 30)...)
	w.settle()
	old := n.m.Actor()
	n.loseDisk()
	w.settle()
	w.check()
	if n.m.Actor() <= old || len(n.view) != 30 {
		t.Errorf("after its disk was lost b0 writes as %d, before %d, and has %d keys of 30", n.m.Actor(), old, len(n.view))
	}
	n.put("after", "k0")
	w.settle()
	w.check()
	if got := w.nodes[1].view[key("k0")]; got != "after" {
		t.Errorf("what it writes then is seen as %q", got)
	}
}

// Writes of which some were lost on the way, and the rest with the disk, hold
// nothing back.
func TestDiskLost_GapsAreClosed(t *testing.T) {
	w := newWorld(t, 1, 3)
	w.run(1)
	n := w.nodes[0]
	w.split[[2]string{"b0", "b1"}], w.split[[2]string{"b0", "b2"}] = true, true
	n.put("lost", names("lost", 40)...)
	delete(w.split, [2]string{"b0", "b1"})
	n.put("heard by b1", names("k", 10)...)
	for len(w.wire) > 0 && w.wire[0].to == "b1" && len(w.nodes[1].view) < 10 {
		w.deliver()
	}
	w.wire = nil
	if len(w.nodes[1].view) != 10 {
		t.Fatalf("b1 has %d keys, want 10", len(w.nodes[1].view))
	}
	n.loseDisk()
	w.settle()
	w.check()
	if got := len(n.view); got != 10 {
		t.Errorf("%d keys are left, want the 10 that were heard of", got)
	}
	w.nodes[2].del(names("k", 10)...)
	w.settle()
}

// What one member has of a lost store is not given up by another that has not.
func TestDiskLost_WhatAMemberHasStays(t *testing.T) {
	w := newWorld(t, 1, 3)
	w.run(3)
	n, holds, lacks := w.nodes[0], w.nodes[1], w.nodes[2]
	w.split[[2]string{"b0", "b2"}] = true
	n.put("to b1", names("one", 10)...)
	delete(w.split, [2]string{"b0", "b2"})
	w.split[[2]string{"b0", "b1"}] = true
	n.put("to b2", names("two", 10)...)
	for _, p := range w.wire {
		w.node(p.to).step(metadata.Received{From: p.from, Message: p.bytes})
	}
	w.wire = nil
	n.loseDisk()
	clear(w.split)
	// All others know of the new life, report to b2, and it gets no answer.
	for range 8 {
		w.now = w.now.Add(3 * time.Second)
		w.tick(n)
		w.tick(holds)
		reports := w.wire
		w.wire = nil
		for _, p := range reports {
			if p.to != "b0" {
				w.node(p.to).step(metadata.Received{From: p.from, Message: p.bytes})
			}
		}
		w.tick(lacks)
		w.wire = nil
	}
	if got := lacks.m.Stats().Lost; got > 0 {
		t.Errorf("b2 has given up %d dots that b1 has", got)
	}
	w.settle()
	w.check()
	if got := len(lacks.view); got != 20 {
		t.Errorf("%d keys are left of 20 that others had", got)
	}
}

// Who has not heard of the end of a life may still get something of it, so nothing
// is given up before.
func TestDiskLost_NothingIsGivenUpBeforeAllKnow(t *testing.T) {
	w := newWorld(t, 1, 3)
	w.run(10) // all have reports of all
	n, late, gap := w.nodes[0], w.nodes[1], w.nodes[2]
	w.split[[2]string{"b0", "b2"}] = true
	n.put("late", names("late", 10)...)
	lateNews := w.wire
	w.wire = nil
	clear(w.split)
	n.put("v", names("k", 10)...)
	for _, p := range w.wire {
		if p.to == "b2" {
			gap.step(metadata.Received{From: p.from, Message: p.bytes})
		}
	}
	w.wire = nil
	n.loseDisk()
	for range 8 {
		w.now = w.now.Add(3 * time.Second)
		w.tick(n)
		w.tick(late)
		reports := w.wire
		w.wire = nil
		for _, p := range reports {
			if p.to == "b2" {
				gap.step(metadata.Received{From: p.from, Message: p.bytes})
			}
		}
		w.tick(gap)
		w.wire = nil
	}
	if got := gap.m.Stats().Lost; got > 0 {
		t.Errorf("b2 has given up %d dots that are on their way to b1", got)
	}
	for _, p := range lateNews {
		late.step(metadata.Received{From: p.from, Message: p.bytes})
	}
	w.settle()
	w.check()
	if got := len(gap.view); got != 20 {
		t.Errorf("%d keys are left of 20 that others had", got)
	}
}

// A fetch that does not come to its end leaves nothing behind.
func TestFetch_GivenUpLeavesNothing(t *testing.T) {
	for _, crash := range []bool{false, true} {
		w := newWorld(t, 1, 2)
		n := w.nodes[0]
		n.put("settled", names("s", 20)...)
		w.settle()
		w.nodes[1].left = true // dead, so what comes now stays in the key map
		n.put("v", names("k", 50)...)
		x := w.add("new")
		x.step(metadata.Join{Name: "b0"})
		n.step(metadata.Join{Name: "new"})
		w.tick(n)
		w.wire = nil
		w.tick(x)
		for x.m.Stats().Dots == 0 && len(w.wire) > 0 {
			w.deliver()
		}
		if s := x.m.Stats(); s.Dots == 0 || s.Objects > 0 {
			t.Fatalf("no fetch is between its first pages: %+v", s)
		}
		n.left = true
		w.wire = nil
		if crash {
			// The process dies, and the disk has all that it wrote.
			if err := x.store.Apply(&kv.Batch{}, true); err != nil {
				t.Fatal(err)
			}
			x.crash()
		}
		x.step(metadata.Leave{Name: "b0"})
		w.settle()
		w.check()
	}
}

// copyOf is the store as it is now, as a backup would be.
func copyOf(t *testing.T, s kv.Store) *mem.Store {
	t.Helper()
	var b kv.Batch
	it := s.Scan(nil, nil)
	defer it.Close()
	for it.Next() {
		b.Put(it.Key(), it.Value())
	}
	out := mem.New()
	if err := out.Apply(&b, true); err != nil {
		t.Fatal(err)
	}
	return out
}

// A store that was set back to an earlier state notices, and takes another actor
// before it writes a dot that is taken.
func TestRollback_TakesANewActor(t *testing.T) {
	w := newWorld(t, 1, 2)
	n := w.nodes[0]
	n.put("v", names("k", 20)...)
	w.settle()
	backup, old := copyOf(t, n.store), n.m.Actor()
	n.put("later", names("k", 10)...)
	n.del(names("k", 20)[15:]...)
	w.settle()
	n.store = backup
	n.crash()
	w.settle()
	w.check()
	if n.m.Actor() == old || n.m.Stats().RolledBack == 0 || n.view[key("k0")] != "later" || len(n.view) != 15 {
		t.Errorf("after a rollback b0 writes as %d (%+v), and has %d keys, k0 %q", n.m.Actor(), n.m.Stats(), len(n.view), n.view[key("k0")])
	}
}

// Who has left is told so, and begins again after a Reset.
func TestLeave_OldStoreIsRefusedUntilReset(t *testing.T) {
	w := newWorld(t, 1, 3)
	n := w.nodes[2]
	n.put("v", names("k", 20)...)
	w.settle()
	for _, o := range w.nodes[:2] {
		o.step(metadata.Leave{Name: n.name})
	}
	w.nodes[0].del(names("k", 5)...)
	n.put("not for them", "mine")
	w.run(5)
	s := n.m.Stats()
	if !s.Retired || s.Objects != 21 {
		t.Errorf("who has left is told so: %v, and has %d objects, want 21", s.Retired, s.Objects)
	}
	if _, ok := w.nodes[0].view[key("mine")]; ok {
		t.Error("a write of who has left was taken")
	}
	n.step(metadata.Write{ID: 500, Mutations: []metadata.Mutation{{Key: key("x"), Value: []byte("v")}}})
	if n.acked[500] {
		t.Error("a store that was given up acknowledges a write")
	}
	n.step(metadata.Reset{})
	if len(n.view) > 0 || n.m.Stats().Retired {
		t.Errorf("after a reset %d keys are left", len(n.view))
	}
	for _, o := range w.nodes[:2] {
		o.step(metadata.Join{Name: n.name})
	}
	w.settle()
	w.check()
	if len(n.view) != 15 {
		t.Errorf("after it has joined again it has %d keys, want 15", len(n.view))
	}
}

// Two stores with one actor, which chance may give, part, also if each has written
// as much as the other.
func TestActor_TwinsPart(t *testing.T) {
	w := newWorld(t, 1, 2)
	w.actor = w.nodes[0].m.Actor() - 10
	n := w.nodes[1]
	n.loseDisk()
	if n.m.Actor() != w.nodes[0].m.Actor() {
		t.Fatal("no twins to begin with")
	}
	w.actor = 1000
	n.put("v", "k")
	w.nodes[0].put("v", "k")
	w.settle()
	w.check()
	if n.m.Actor() == w.nodes[0].m.Actor() {
		t.Error("two brokers write as one actor")
	}
}

func TestStranger_IsNotHeard(t *testing.T) {
	w := newWorld(t, 1, 2)
	x := w.add("stranger")
	x.step(metadata.Join{Name: "b0"})
	x.put("v", "k")
	w.run(5)
	if len(w.nodes[0].view) > 0 || w.nodes[0].m.Stats().Refused == 0 {
		t.Error("who is no member was heard")
	}
	if x.m.Stats().Retired {
		t.Error("who is no member yet was told to reset")
	}
}
