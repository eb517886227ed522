// SPDX-License-Identifier: Apache-2.0

package metadata_test

import (
	"errors"
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/infra/kv/mem"
	"github.com/manormq/manor/services/broker/metadata"
)

var churnFlag = flag.Int("metadata.churn", 20_000, "how many keys come and go in TestDeletes_LeaveNothing")

func key(name string) metadata.Key { return metadata.Key{Space: "test", Name: name} }

// put writes names at n, in one turn, and fails if it is not acknowledged.
func (n *node) put(value string, names ...string) {
	n.w.t.Helper()
	n.mutate(metadata.Mutation{Value: []byte(value)}, names...)
}

func (n *node) del(names ...string) {
	n.w.t.Helper()
	n.mutate(metadata.Mutation{Delete: true}, names...)
}

func (n *node) mutate(x metadata.Mutation, names ...string) {
	n.w.t.Helper()
	var list []metadata.Mutation
	for _, name := range names {
		x.Key = key(name)
		list = append(list, x)
	}
	n.w.wrote++
	if n.step(metadata.Write{ID: n.w.wrote, Mutations: list}); !n.acked[n.w.wrote] {
		n.w.t.Errorf("%s: write %d is not acknowledged", n.name, n.w.wrote)
	}
}

func (w *world) big() {
	for _, n := range w.nodes {
		n.cfg.MessageBytes, n.cfg.MessageDots, n.cfg.Groups = 0, 0, 8
		n.store = mem.New()
		n.open()
		for _, o := range w.nodes {
			n.step(metadata.Join{Name: o.name})
		}
	}
}

// run lets seconds pass, a tick each half.
func (w *world) run(seconds int) {
	for range 2 * seconds {
		w.now = w.now.Add(time.Second / 2)
		for _, n := range w.live() {
			w.tick(n)
		}
		for len(w.wire) > 0 {
			w.deliver()
		}
	}
}

// size counts what is in a store.
func size(t *testing.T, s kv.Store) (keys, bytes int) {
	t.Helper()
	it := s.Scan(nil, nil)
	defer it.Close()
	for it.Next() {
		keys++
		bytes += len(it.Key()) + len(it.Value())
	}
	if it.Err() != nil {
		t.Fatal(it.Err())
	}
	return keys, bytes
}

func names(prefix string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%s%d", prefix, i)
	}
	return out
}

// Random keys come and go, and the stores are what they were. The counters of the
// clocks have grown: by a byte or two each.
func TestDeletes_LeaveNothing(t *testing.T) {
	w := newWorld(t, 1, 3)
	w.big()
	for i, n := range w.nodes {
		n.put("stays", names(fmt.Sprintf("stays%d-", i), 100)...)
	}
	w.settle()
	keys, bytes := size(t, w.nodes[0].store)
	churn := *churnFlag
	if testing.Short() {
		churn = min(churn, 4000)
	}
	for i := 0; i < churn; i += 1000 {
		n := w.nodes[i/1000%3]
		some := names(fmt.Sprintf("key%d-", i), 1000)
		n.put("comes and goes", some...)
		for len(w.wire) > 0 {
			w.deliver()
		}
		w.nodes[(i/1000+1)%3].del(some...) // another deletes what it has heard of
		w.run(1)
	}
	w.settle()
	w.check()
	for _, n := range w.nodes {
		nowKeys, nowBytes := size(t, n.store)
		if nowKeys != keys || nowBytes > bytes+8*3*20 {
			t.Errorf("%s has %d keys of %d bytes, before %d of %d", n.name, nowKeys, nowBytes, keys, bytes)
		}
		if s := n.m.Stats(); s.Objects != 300 || s.Tombstones != 0 || s.Dots != 0 || s.Contexts != 0 {
			t.Errorf("%s counts %+v", n.name, s)
		}
	}
}

func TestDeletes_WaitForTheDeadUntilTheyLeave(t *testing.T) {
	w := newWorld(t, 1, 3)
	w.nodes[0].put("v", names("k", 50)...)
	w.settle()
	w.nodes[2].left = true // dead, and a member
	w.nodes[0].del(names("k", 50)...)
	w.run(30)
	if s := w.nodes[1].m.Stats(); s.Objects != 0 || s.Dots != 50 {
		t.Errorf("with a dead member there are %d objects and %d dots, want 0 and 50", s.Objects, s.Dots)
	}
	for _, n := range w.nodes[:2] {
		n.step(metadata.Leave{Name: "b2"})
	}
	w.settle()
}

// Two brokers that know the same say so in two messages for each group.
func TestExchange_EqualBrokersNeedTwoMessages(t *testing.T) {
	for _, objects := range []int{10, 5000} {
		w := newWorld(t, 1, 2)
		w.big()
		w.nodes[0].put("v", names("k", objects)...)
		w.settle()
		w.run(4)
		before := w.sent
		w.run(2) // one period: each of two brokers compares each of 8 groups once
		if got := w.sent - before; got != 2*2*8 {
			t.Errorf("with %d objects a period costs %d messages, want %d", objects, got, 2*2*8)
		}
	}
}

// The writes of a turn travel together, and are acknowledged as seen by all.
func TestWrite_TravelsInBatches(t *testing.T) {
	w := newWorld(t, 1, 3)
	w.big()
	w.run(1)
	before := w.sent
	n := w.nodes[0]
	n.hold = true
	for i := range uint64(20_000) {
		n.step(metadata.Write{ID: i, Mutations: []metadata.Mutation{{Key: key(fmt.Sprint(i)), Value: []byte("v")}}})
	}
	n.hold = false
	n.step()
	if got := w.sent - before; got > 2*3*8 {
		t.Errorf("20,000 writes go to 2 members in %d messages, want at most %d", got, 2*3*8)
	}
	for len(w.wire) > 0 {
		w.deliver()
	}
	if got := len(w.nodes[1].view); got != 20_000 {
		t.Errorf("another broker has %d keys, want 20,000", got)
	}
	n.step()
	if len(n.reach) != 20_000 {
		t.Errorf("%d writes are said to have reached all, want 20,000", len(n.reach))
	}
}

func TestWrite_ReachedEndsWithItsTime(t *testing.T) {
	w := newWorld(t, 1, 3)
	w.run(1)
	w.split[[2]string{"b0", "b2"}] = true
	n := w.nodes[0]
	n.step(metadata.Write{ID: 77, Mutations: []metadata.Mutation{{Key: key("k"), Value: []byte("v")}}})
	for len(w.wire) > 0 {
		w.deliver()
	}
	if n.step(); n.reach[77] {
		t.Error("a write reached a member that nothing reaches")
	}
	w.now = w.now.Add(300 * time.Millisecond)
	if w.tick(n); !n.reach[77] || n.m.Stats().Unreached != 1 {
		t.Error("a write waits longer than Config.Reach")
	}
}

func TestWrite_Ranks(t *testing.T) {
	w := newWorld(t, 1, 2)
	n := w.nodes[0]
	n.mutate(metadata.Mutation{Value: []byte("five"), Rank: 5}, "k")
	n.step(metadata.Write{ID: 100, Mutations: []metadata.Mutation{{Key: key("k"), Value: []byte("four"), Rank: 4}, {Key: key("other"), Value: []byte("v")}}})
	if n.acked[100] || n.view[key("k")] != "five" || n.view[key("other")] != "v" {
		t.Errorf("a write below the rank leaves %q, and is acknowledged: %v", n.view[key("k")], n.acked[100])
	}
	// The other does not know of it yet: its lower epoch loses when they meet.
	w.nodes[1].mutate(metadata.Mutation{Value: []byte("three"), Rank: 3}, "k")
	w.settle()
	if got := w.nodes[1].view[key("k")]; got != "five" {
		t.Errorf("of two concurrent values %q is seen, want that of the higher rank", got)
	}
	// A revision counts on from what is seen, and takes the place of both.
	w.nodes[1].put("next", "k")
	w.settle()
	v, ok, err := metadata.Lookup(n.store, n.cfg.Groups, key("k"))
	if err != nil || !ok || v.Rank != 6 || string(v.Bytes) != "next" {
		t.Errorf("the next revision is %v %q, %v, want 6", v.Rank, v.Bytes, err)
	}
	before := n.m.Stats().Dots
	n.put("next", "k")
	n.del("nothing")
	if got := n.m.Stats().Dots; got != before {
		t.Error("a write that changes nothing wrote a dot")
	}
	n.step(metadata.Write{ID: 101, Mutations: []metadata.Mutation{{Key: metadata.Key{Name: "no space"}}}})
	if n.acked[101] {
		t.Error("a key without space is taken")
	}
}

// Nothing of a turn is told before its batch can be on the disk.
func TestEffects_SyncBeforeTelling(t *testing.T) {
	w := newWorld(t, 1, 2)
	w.run(1)
	n := w.nodes[0]
	n.m.Step(w.now, metadata.Write{ID: 1, Mutations: []metadata.Mutation{{Key: key("k"), Value: []byte("v")}}}, &n.fx)
	if len(n.fx.Send) > 0 {
		t.Error("a write is told before the turn ends")
	}
	if err := n.m.Flush(&n.fx); err != nil || !n.fx.Sync || n.fx.Batch.Len() < 3 || len(n.fx.Send) == 0 || len(n.fx.Done) != 1 {
		t.Errorf("a write gives a batch of %d, sync %v, %d messages, error %v", n.fx.Batch.Len(), n.fx.Sync, len(n.fx.Send), err)
	}
	news := n.fx.Send[0].Bytes
	n.write()
	o := w.nodes[1]
	o.m.Step(w.now, metadata.Received{From: n.name, Message: news}, &o.fx)
	if err := o.m.Flush(&o.fx); err != nil || o.fx.Sync || o.fx.Batch.Len() == 0 {
		t.Errorf("news give a batch of %d, sync %v, error %v, want no sync", o.fx.Batch.Len(), o.fx.Sync, err)
	}
	o.write()
	o.m.Step(w.now.Add(10*time.Second), metadata.Tick{Reachable: w.names()}, &o.fx)
	if err := o.m.Flush(&o.fx); err != nil || !o.fx.Sync {
		t.Errorf("a clock is told without sync (%v) of what it tells", err)
	}
	o.write()
}

func TestMachine_RefusesAnotherStore(t *testing.T) {
	w := newWorld(t, 1, 1)
	n := w.nodes[0]
	for _, c := range []metadata.Config{
		{Name: "other", Groups: 2, Mint: w.mint}, {Name: "b0", Groups: 3, Mint: w.mint}, {Name: "b0", Groups: 65, Mint: w.mint},
	} {
		var fx metadata.Effects
		if _, err := metadata.New(c, n.store, &fx); err == nil {
			t.Errorf("%q with %d groups opens the store of b0 with 2", c.Name, c.Groups)
		}
	}
	if err := n.store.Close(); err != nil {
		t.Fatal(err)
	}
	var fx metadata.Effects
	if _, err := metadata.New(n.cfg, n.store, &fx); !errors.Is(err, kv.ErrClosed) {
		t.Errorf("a store that cannot be read: %v, want ErrClosed", err)
	}
}
