// SPDX-License-Identifier: Apache-2.0

package metadata_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/manormq/manor/infra/kv/mem"
	"github.com/manormq/manor/services/broker/metadata"
	"github.com/manormq/manor/services/broker/swc"
)

// world is brokers as pure machines in one goroutine. What a seed does it does
// again.
type world struct {
	t     *testing.T
	r     *rand.Rand
	now   time.Time
	nodes []*node
	wire  []parcel
	actor swc.Actor
	wrote uint64

	// calm: messages arrive, in order and once.
	calm  bool
	split map[[2]string]bool // directions in which nothing arrives
	sent  int
}

type parcel struct {
	from, to string
	bytes    []byte
}

type node struct {
	w     *world
	name  string
	store *mem.Store
	m     *metadata.Machine
	cfg   metadata.Config
	left  bool
	// lives counts the lost disks. Each life has keys of its own: who does not know
	// yet what it once wrote cannot delete it.
	lives int
	// view is what the changes make of the keys; it must be what the store says.
	view map[metadata.Key]string
	// acked are the writes that were acknowledged here, and the newest of each key.
	acked map[uint64]bool
	hold  bool // the turn is not over
	fx    metadata.Effects
	reach map[uint64]bool
}

func newWorld(t *testing.T, seed uint64, n int) *world {
	t.Helper()
	w := &world{t: t, r: rand.New(rand.NewPCG(seed, 1)), now: time.Unix(1e9, 0), calm: true, split: map[[2]string]bool{}}
	for i := range n {
		w.add(fmt.Sprintf("b%d", i))
	}
	for _, a := range w.nodes {
		for _, b := range w.nodes {
			a.step(metadata.Join{Name: b.name})
		}
	}
	return w
}

func (w *world) mint() swc.Actor { w.actor += 10; return w.actor }

func (w *world) add(name string) *node {
	n := &node{
		w: w, name: name, store: mem.New(), view: map[metadata.Key]string{}, acked: map[uint64]bool{}, reach: map[uint64]bool{},
		cfg: metadata.Config{Name: name, Groups: 2, Mint: w.mint, MessageDots: 5, MessageBytes: 300},
	}
	w.nodes = append(w.nodes, n)
	n.open()
	return n
}

func (n *node) open() {
	n.fx.Reset()
	m, err := metadata.New(n.cfg, n.store, &n.fx)
	if err != nil {
		n.w.t.Fatal(err)
	}
	n.m = m
	n.write()
}

// write carries the effects of a turn out.
func (n *node) write() {
	if err := n.store.Apply(&n.fx.Batch, n.fx.Sync); err != nil {
		n.w.t.Fatal(err)
	}
	n.m.Written(&n.fx)
	for _, s := range n.fx.Send {
		n.w.post(parcel{n.name, s.To, s.Bytes})
	}
	for _, c := range n.fx.Changes {
		old, had := n.view[c.Key]
		if had != (c.Old != nil) || had && old != string(c.Old.Bytes) {
			n.w.t.Errorf("%s: %v changes from %v, but was %q", n.name, c.Key, c.Old, old)
		}
		if c.New == nil {
			delete(n.view, c.Key)
		} else {
			n.view[c.Key] = string(c.New.Bytes)
		}
	}
	for _, d := range n.fx.Done {
		if d.Err == nil {
			n.acked[d.ID] = true
		}
	}
	for _, id := range n.fx.Reached {
		n.reach[id] = true
	}
	n.fx.Reset()
}

func (n *node) step(events ...metadata.Event) {
	for _, e := range events {
		n.m.Step(n.w.now, e, &n.fx)
	}
	if n.hold {
		return
	}
	if err := n.m.Flush(&n.fx); err != nil {
		n.w.t.Fatal(err)
	}
	n.write()
}

// crash loses what no synced batch has, and the turn that was not over.
func (n *node) crash() {
	n.store.Crash()
	n.view, n.hold = map[metadata.Key]string{}, false
	n.open()
	n.reload()
}

// loseDisk takes the store away.
func (n *node) loseDisk() {
	n.store = mem.New()
	n.lives++
	n.view, n.hold = map[metadata.Key]string{}, false
	n.open()
	for _, o := range n.w.nodes {
		if !o.left {
			n.step(metadata.Join{Name: o.name})
		}
	}
}

// reload reads the view from the store, as a watch does at its start.
func (n *node) reload() {
	err := metadata.Scan(n.store, n.cfg.Groups, "", func(k metadata.Key, v metadata.Value) bool {
		n.view[k] = string(v.Bytes)
		return true
	})
	if err != nil {
		n.w.t.Fatal(err)
	}
}

func (w *world) post(p parcel) {
	w.sent++
	if w.split[[2]string{p.from, p.to}] {
		return
	}
	copies := 1
	if !w.calm {
		copies = [...]int{0, 1, 1, 1, 2}[w.r.IntN(5)]
	}
	for range copies {
		w.wire = append(w.wire, p)
	}
}

func (w *world) node(name string) *node {
	i := slices.IndexFunc(w.nodes, func(n *node) bool { return n.name == name })
	return w.nodes[i]
}

// deliver hands one message over, any if it is not calm.
func (w *world) deliver() {
	if len(w.wire) == 0 {
		return
	}
	i := 0
	if !w.calm {
		i = w.r.IntN(min(len(w.wire), 20))
	}
	p := w.wire[i]
	w.wire = slices.Delete(w.wire, i, i+1)
	if n := w.node(p.to); !n.left {
		n.step(metadata.Received{From: p.from, Message: p.bytes})
	}
}

func (w *world) names() (names []string) {
	for _, n := range w.nodes {
		if !n.left {
			names = append(names, n.name)
		}
	}
	return names
}

func (w *world) tick(n *node) { n.step(metadata.Tick{Reachable: w.names()}) }

func (w *world) live() []*node {
	return slices.DeleteFunc(slices.Clone(w.nodes), func(n *node) bool { return n.left })
}

// settle lets the world run without faults until all are settled.
func (w *world) settle() {
	w.t.Helper()
	w.calm = true
	clear(w.split)
	for _, n := range w.live() {
		if n.hold {
			n.hold = false
			n.step()
		}
	}
	for range 100 {
		w.now = w.now.Add(time.Second)
		for _, n := range w.live() {
			w.tick(n)
		}
		for len(w.wire) > 0 {
			w.deliver()
		}
		settled := true
		for _, n := range w.live() {
			settled = settled && n.m.Settled()
		}
		if settled && w.equal() {
			return
		}
	}
	for _, n := range w.live() {
		w.t.Errorf("%s does not settle: %+v digest %x", n.name, n.m.Stats(), n.m.Digest())
	}
}

func (w *world) equal() bool {
	live := w.live()
	for _, n := range live[1:] {
		if n.m.Digest() != live[0].m.Digest() {
			return false
		}
	}
	return true
}

// check holds the views of all to each other and to their stores.
func (w *world) check() {
	w.t.Helper()
	live := w.live()
	for _, n := range live {
		if !maps.Equal(n.view, live[0].view) {
			w.t.Errorf("%s sees %d keys, %s %d, not the same ones", n.name, len(n.view), live[0].name, len(live[0].view))
		}
		view := n.view
		n.view = map[metadata.Key]string{}
		n.reload()
		if !maps.Equal(n.view, view) {
			w.t.Errorf("%s has %d keys in its store, its changes make %d", n.name, len(n.view), len(view))
		}
		if s := n.m.Stats(); s.Objects != len(n.view) {
			w.t.Errorf("%s counts %d objects, has %d", n.name, s.Objects, len(n.view))
		}
	}
}
