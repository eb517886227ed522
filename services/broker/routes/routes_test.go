// SPDX-License-Identifier: Apache-2.0

package routes_test

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manormq/manor/infra/kv/mem"
	"github.com/manormq/manor/services/broker/metadata"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/routes"
)

// alone is a broker without others, for a bubble. Nothing runs yet.
func alone(t *testing.T) (b *broker, run func()) {
	t.Helper()
	b = &broker{plain: map[routes.Key]bool{}, groups: map[routes.Key]routes.GroupState{}, has: map[routes.Key]bool{}}
	log := slog.New(slog.DiscardHandler)
	var err error
	if b.store, err = metadata.Open(metadata.Config{Name: "b1"}, mem.New(), nobody{}, log); err != nil {
		t.Fatal(err)
	}
	b.Routes = routes.New(routes.Config{Store: b.store, Sink: b, Log: log})
	return b, func() {
		done := make(chan error, 1)
		go func() { done <- b.store.Run(t.Context()) }()
		go func() { b.Run(t.Context()); done <- nil }()
		t.Cleanup(func() { _, _ = <-done, <-done })
	}
}

type nobody struct{}

func (nobody) Peers() []string     { return nil }
func (nobody) Send(string, []byte) {}

// A route that has reached the others is in their routes, not on its way there.
func TestReached(t *testing.T) {
	b1, b2, b3 := begin(t, "b1", t.TempDir()), begin(t, "b2", t.TempDir()), begin(t, "b3", t.TempDir())
	meet(t, b1, b2, b3)
	b1.own(7, 1)
	// The store learns of links with its ticks; then it waits for both.
	until(t, "the others have a route when it has reached them", func() bool {
		reached := make(chan bool, 1)
		b1.subscribe("a/first", 7, 1, func() { reached <- true })
		<-reached
		ok := b2.knows() == 1 && b3.knows() == 1
		b1.unsubscribe("a/first", 7, 1)
		until(t, "nobody has a route", func() bool { return b1.knows()+b2.knows()+b3.knows() == 0 })
		return ok
	})
	before := b1.Stats().Writes
	for i := range 50 {
		reached := make(chan bool, 2)
		at := time.Now()
		b1.subscribe(fmt.Sprint("a/", i), 7, 1, func() { reached <- true })
		<-reached
		if took := time.Since(at); took > 200*time.Millisecond {
			t.Logf("route %d took %v: it may have been given up", i, took)
			continue
		}
		for _, b := range []*broker{b1, b2, b3} {
			if b.knows() != i+1 {
				t.Fatalf("%s has %d routes, expected %d", b.name, b.knows(), i+1)
			}
		}
	}
	for i := range 50 {
		b1.unsubscribe(fmt.Sprint("a/", i), 7, 1)
	}
	until(t, "nobody has a route", func() bool { return b1.knows()+b2.knows()+b3.knows() == 0 })
	if s := b2.Stats(); s.Keys != 0 || s.Writes != 0 || b1.Stats().Writes != before+100 {
		t.Errorf("stats %+v %+v", s, b1.Stats())
	}
}

// However often one key changes before it is written, one state is.
func TestCoalesce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, run := alone(t)
		reached := 0
		for range 1000 {
			b.Remove("acme", "a", 1, 1)
			b.Add("acme", "a", 1, 1, func() { reached++ })
			b.Add("acme", "b", 1, 1, nil)
			b.Remove("acme", "b", 1, 1)
		}
		b.Remove("acme", "a", 1, 0) // of an owner before
		run()
		synctest.Wait()
		if s := b.Stats(); s.Writes != 2 || s.Coalesced != 3999 || s.Pending != 0 || s.Keys != 1 || reached != 1000 {
			t.Errorf("%+v, reached %d", s, reached)
		}
		if got := b.filters(); !slices.Equal(got, []string{"a"}) {
			t.Errorf("routes %v", got)
		}
	})
}

// Who waits is told after 250 ms though nothing is written; and at once when Run
// has ended.
func TestReached_EndsWithItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := alone(t)
		go b.Run(t.Context()) // the store does not
		begin := time.Now()
		var after atomic.Int64
		b.Add("acme", "a", 1, 1, func() { after.Store(int64(time.Since(begin))) })
		time.Sleep(time.Second)
		if got := time.Duration(after.Load()); got != 250*time.Millisecond {
			t.Errorf("told after %v", got)
		}
		called := false
		b.Add("", "a", 1, 1, func() { called = true })
		if !called {
			t.Error("who adds what is no route waits for ever")
		}
	})
}

// Who comes second, or says again what is on its way, waits as the first does.
func TestAwait(t *testing.T) {
	b1, b2 := begin(t, "b1", t.TempDir()), begin(t, "b2", t.TempDir())
	meet(t, b1, b2)
	now := false
	b1.Await("acme", "nothing", 7, func() { now = true })
	if !now {
		t.Error("there is nothing to wait for")
	}
	until(t, "b1 has seen its link to b2", func() bool {
		reached := make(chan bool, 1)
		b1.Add("acme", "first", 7, 1, func() { reached <- true })
		<-reached
		ok := b2.knows() == 1
		b1.Remove("acme", "first", 7, 1)
		until(t, "nobody has a route", func() bool { return b1.knows()+b2.knows() == 0 })
		return ok
	})
	const n = 300
	var done sync.WaitGroup
	var missing, late atomic.Int64
	for i := range n {
		f, at := fmt.Sprint("a/", i), time.Now()
		k := routes.Key{Tenant: "acme", Filter: f, Partition: 7}
		b1.Add("acme", f, 7, 1, nil)
		done.Add(3)
		check := func() {
			defer done.Done()
			b2.mu.Lock()
			defer b2.mu.Unlock()
			switch {
			case b2.plain[k]:
			case time.Since(at) > 200*time.Millisecond:
				late.Add(1)
			default:
				missing.Add(1)
			}
		}
		b1.Await("acme", f, 7, check)
		if i%3 == 0 { // it is to be under way, not yet there
			for end := time.Now().Add(10 * time.Second); b1.Stats().Pending > 0 && time.Now().Before(end); {
				runtime.Gosched()
			}
		}
		b1.Await("acme", f, 7, check)
		b1.Add("acme", f, 7, 1, check)
	}
	done.Wait()
	if missing.Load() > 0 {
		t.Errorf("%d of %d were told though b2 had no route", missing.Load(), 3*n)
	}
	t.Logf("%d were given up", late.Load())
}

// The first and the last of a group's numbers go at once, others every 50 ms.
func TestSetGroup_Pace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, run := alone(t)
		run()
		const key = "$share/g/a"
		k := routes.Key{Tenant: "acme", Filter: key, Partition: 1}
		have := func() routes.GroupState {
			synctest.Wait()
			b.mu.Lock()
			defer b.mu.Unlock()
			return b.groups[k]
		}
		set := func(m, o, d int) { b.SetGroup("acme", key, 1, 1, routes.GroupState{Members: m, Online: o, Durable: d}) }
		set(1, 1, 0)
		if have().Members != 1 {
			t.Fatal("the first member is not told at once")
		}
		for n := 2; n <= 500; n++ {
			set(n, n, 0)
		}
		if g := have(); g.Members != 1 {
			t.Errorf("%+v at once", g)
		}
		time.Sleep(70 * time.Millisecond)
		if g := have(); g.Members != 500 || b.Stats().Writes != 2 {
			t.Errorf("%+v after 70 ms, %+v", g, b.Stats())
		}
		set(499, 499, 0)
		set(498, 0, 0)
		if g := have(); g != (routes.GroupState{Members: 498}) {
			t.Errorf("%+v: nobody is connected, and that must be told at once", g)
		}
		set(0, 0, 0)
		if g := have(); g.Members != 0 || b.Stats().Keys != 0 {
			t.Errorf("%+v is left", g)
		}
	})
}

// What a shard has of a ceded part is what the space has, in the end.
func TestRecheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, run := alone(t)
		run()
		b.Add("acme", "there", 1, 1, nil)
		synctest.Wait()
		b.FarRoute("acme", "gone", 1, true)
		b.FarRoute("acme", "there", 1, false)
		b.Recheck("acme", "gone", 1)
		b.Recheck("acme", "there", 1)
		synctest.Wait()
		if got := b.filters(); !slices.Equal(got, []string{"there"}) {
			t.Errorf("routes %v", got)
		}
	})
}

// Who has lost a partition is told of its groups again: before that what is here counted alone.
func TestLost_GroupsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, run := alone(t)
		run()
		b.SetGroup("acme", "$share/g/a", 1, 1, routes.GroupState{Members: 3, Online: 3})
		b.SetGroup("acme", "$share/g/b", 2, 1, routes.GroupState{Members: 3, Online: 3})
		b.Add("acme", "plain", 1, 1, nil)
		synctest.Wait()
		for _, key := range []string{"$share/g/a", "$share/g/b"} {
			b.FarGroup("acme", key, 1, routes.GroupState{})
			b.FarGroup("acme", key, 2, routes.GroupState{})
		}
		b.FarRoute("acme", "plain", 1, false)
		b.Lost(1, 1)
		synctest.Wait()
		want := routes.Key{Tenant: "acme", Filter: "$share/g/a", Partition: 1}
		b.mu.Lock()
		defer b.mu.Unlock()
		if len(b.groups) != 1 || b.groups[want].Members != 3 || len(b.plain) > 0 {
			t.Errorf("told of %v and %v", b.groups, b.plain)
		}
	})
}

// The next owner removes what the first one left, the late writes of the first lose,
// and what it deletes late comes back.
func TestOwnerChange(t *testing.T) {
	b1, b2, b3 := begin(t, "b1", t.TempDir()), begin(t, "b2", t.TempDir()), begin(t, "b3", t.TempDir())
	meet(t, b1, b2, b3)
	b1.own(7, 1)
	for _, f := range []string{"kept", "left", "again"} {
		b1.subscribe(f, 7, 1, nil)
	}
	b1.set("$share/g/a", 7, true)
	b1.SetGroup("acme", "$share/g/a", 7, 1, routes.GroupState{Members: 3, Online: 3})
	b1.Add("acme", "other", 8, 1, nil)
	until(t, "all have five routes", func() bool { return b1.knows() == 5 && b2.knows() == 5 && b3.knows() == 5 })

	b1.Lost(7, 1)
	b2.set("kept", 7, true)
	b2.set("again", 7, true)
	b2.own(7, 2)
	b2.subscribe("new", 7, 2, nil)
	want := []string{"again", "kept", "new", "other"}
	same := func(what string) {
		t.Helper()
		until(t, what, func() bool {
			for _, b := range []*broker{b1, b2, b3} {
				if !slices.Equal(b.filters(), want) || b.knows() != len(want) {
					return false
				}
			}
			return true
		})
	}
	same("the leftovers of the first owner are gone")

	// A mark of the same sender comes after what is to lose.
	b1.Remove("acme", "new", 7, 1) // below the rank that is there
	b1.Remove("acme", "kept", 7, 1)
	b1.Add("acme", "late", 7, 1, nil)
	b1.SetGroup("acme", "$share/g/late", 7, 1, routes.GroupState{Members: 1, Online: 1})
	b1.Add("acme", "z-mark", 8, 1, nil)
	want = append(want, "z-mark")
	same("late writes of the first owner lose")
	if s := b1.Stats(); s.Stale != 1 {
		t.Errorf("%+v: one change is below the rank that is there", s)
	}
	until(t, "the second owner has mended three keys", func() bool { return b2.Stats().Healed >= 3+2 })
	if v, ok, err := b2.store.Get(metadata.Key{Space: routes.Space, Name: routes.Key{Tenant: "acme", Filter: "kept", Partition: 7}.Name()}); !ok || err != nil || v.Rank != 2 {
		t.Errorf("kept is %+v %v %v, expected it under epoch 2", v, ok, err)
	}
}

// What the first owner deletes while the next one restores comes back, if the next
// one has it: its shard has found the key there and has not written it.
func TestGaining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, run := alone(t)
		run()
		b.Add("acme", "a", 7, 1, nil)
		b.Add("acme", "b", 7, 1, nil)
		synctest.Wait()
		b.Gaining(7, 2)
		b.set("a", 7, true)
		b.Remove("acme", "a", 7, 1)
		b.Remove("acme", "b", 7, 1)
		synctest.Wait()
		if got := b.filters(); len(got) != 0 {
			t.Fatalf("routes %v, expected none: nothing is known of the partition yet", got)
		}
		b.own(7, 2)
		synctest.Wait()
		if got := b.filters(); !slices.Equal(got, []string{"a"}) || b.Stats().Healed != 1 {
			t.Errorf("routes %v, %+v", got, b.Stats())
		}
		b.Lost(7, 2)
		b.Remove("acme", "a", 7, 2)
		synctest.Wait()
		if got := b.filters(); len(got) != 0 {
			t.Errorf("routes %v: it has another owner", got)
		}
	})
}

// The numbers of a group that a former owner writes late give way to the owner's.
func TestGroupIsMended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, run := alone(t)
		run()
		const key = "$share/g/a"
		k := routes.Key{Tenant: "acme", Filter: key, Partition: 7}
		write := func(m metadata.Mutation) {
			t.Helper()
			m.Key = metadata.Key{Space: routes.Space, Name: k.Name()}
			if err := b.store.Do(t.Context(), m); err != nil {
				t.Fatal(err)
			}
		}
		right := routes.GroupState{Members: 5, Online: 4, Durable: 3}
		write(metadata.Mutation{Value: []byte{9, 9, 9}, Rank: 1})
		b.set(key, 7, true)
		b.SetGroup("acme", key, 7, 2, right)
		b.own(7, 2)
		check := func(what string) {
			t.Helper()
			time.Sleep(time.Second)
			b.mu.Lock()
			defer b.mu.Unlock()
			if b.groups[k] != right {
				t.Errorf("%s: %+v, expected %+v", what, b.groups[k], right)
			}
		}
		check("leftover")
		write(metadata.Mutation{Delete: true, Rank: 2})
		check("deleted")
		b.set(key, 7, false)
		b.SetGroup("acme", key, 7, 2, routes.GroupState{})
		right = routes.GroupState{}
		check("gone")
		write(metadata.Mutation{Value: []byte{1, 1, 1}, Rank: 1})
		check("late")
	})
}

// A broker that was away has everything when it is back.
func TestAway(t *testing.T) {
	b1, b2, dir := begin(t, "b1", t.TempDir()), begin(t, "b2", t.TempDir()), t.TempDir()
	b3 := begin(t, "b3", dir)
	meet(t, b1, b2, b3)
	b1.Add("acme", "before", 1, 1, nil)
	until(t, "b3 has the first route", func() bool { return b3.knows() == 1 })
	b3.end()
	const n = 3000
	for i := range n {
		b1.Add("acme", fmt.Sprint("a/", i), 1, 1, nil)
	}
	b1.Remove("acme", "before", 1, 1)
	until(t, "b2 has what came meanwhile", func() bool { return b2.knows() == n })
	b3 = begin(t, "b3", dir)
	meet(t, b1, b2, b3)
	until(t, "b3 has what came while it was away", func() bool { return b3.knows() == n && b3.Stats().Keys == n })
}

// A store that takes no more is asked again, and nothing is lost or out of order.
func TestBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := alone(t)
		big := make([]byte, 65<<20)
		b.store.Write([]metadata.Mutation{{Key: metadata.Key{Space: "big", Name: "x"}, Value: big, Rank: 1}}, nil, nil)
		var refused error
		b.store.Write([]metadata.Mutation{{Key: metadata.Key{Space: "big", Name: "y"}, Rank: 1}}, func(err error) { refused = err }, nil)
		if !errors.Is(refused, metadata.ErrBusy) {
			t.Fatalf("%v: the store is not full", refused)
		}
		ended := make(chan bool)
		go func() { b.Run(t.Context()); close(ended) }()
		t.Cleanup(func() { <-ended })
		b.Add("acme", "a", 1, 1, nil)
		b.Add("acme", "b", 1, 1, nil)
		time.Sleep(120 * time.Millisecond)
		b.Remove("acme", "a", 1, 1)
		if s := b.Stats(); s.Retried < 2 || s.Writes != 0 {
			t.Errorf("%+v", s)
		}
		done := make(chan error, 1)
		go func() { done <- b.store.Run(t.Context()) }()
		t.Cleanup(func() { <-done })
		time.Sleep(time.Second)
		if got := b.filters(); !slices.Equal(got, []string{"b"}) {
			t.Errorf("routes %v, expected b", got)
		}
	})
}

// Among many routes those of a partition are found by the beginning of their names, and
// none of its neighbours'.
func TestOwnerChange_AmongMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, run := alone(t)
		run()
		want := []string{"kept"}
		add := func(f string, p partition.ID) { b.Add("acme", f, p, 1, nil) }
		for i := range 300 {
			for _, p := range []partition.ID{6, 8, 0x0107, 0x0700} {
				f := fmt.Sprint(p, "/", i)
				add(f, p)
				want = append(want, f)
			}
		}
		for i := range 50 {
			add(fmt.Sprint("left/", i), 7)
		}
		add("kept", 7)
		b.set("kept", 7, true)
		synctest.Wait()
		b.own(7, 2)
		time.Sleep(time.Second)
		synctest.Wait()
		slices.Sort(want)
		if got := b.filters(); !slices.Equal(got, want) || b.Stats().Healed != 50 {
			t.Errorf("%d routes, expected %d; %+v", len(got), len(want), b.Stats())
		}
	})
}
