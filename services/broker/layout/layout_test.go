// SPDX-License-Identifier: Apache-2.0

package layout_test

import (
	"context"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/kv/mem"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/services/broker/layout"
	"github.com/manormq/manor/services/broker/metadata"
	"github.com/manormq/manor/services/broker/partition"
)

const (
	parts    = 16
	reserved = 4
)

// node is a broker's metadata and what it makes of it.
type node struct {
	*layout.Layout
	store *mem.Store
	meta  *metadata.Store
	name  string
	peers *peers

	mu   sync.Mutex
	told map[string]uint64 // guarded by mu: the newest revision of a tenant that was told
}

// peers carries messages between nodes while they are linked.
type peers struct {
	mu     sync.Mutex
	nodes  map[string]*node // guarded by mu
	linked bool             // guarded by mu
}

type voice struct{ n *node }

func (v voice) Peers() (names []string) {
	p := v.n.peers
	p.mu.Lock()
	defer p.mu.Unlock()
	for name := range p.nodes {
		if name != v.n.name && p.linked {
			names = append(names, name)
		}
	}
	return names
}

func (v voice) Send(to string, b []byte) {
	p := v.n.peers
	p.mu.Lock()
	n, linked := p.nodes[to], p.linked
	p.mu.Unlock()
	if n != nil && linked {
		n.meta.Receive(v.n.name, slices.Clone(b))
	}
}

// start starts a node on a store, which ends with the test, or with the function.
func (p *peers) start(t *testing.T, name string, store *mem.Store) (n *node, end func()) {
	t.Helper()
	n = &node{store: store, name: name, peers: p, told: map[string]uint64{}}
	log := slog.New(slog.DiscardHandler)
	var err error
	if n.meta, err = metadata.Open(metadata.Config{Name: name, Groups: 2, Exchange: 50 * time.Millisecond}, store, voice{n}, log); err != nil {
		t.Fatal(err)
	}
	if n.Layout, err = layout.New(layout.Config{
		Store: n.meta, Partitions: parts, Reserved: reserved, Replicas: 2, Log: log,
		Changed: func(tenant string, c layout.Cell) {
			n.mu.Lock()
			n.told[tenant] = max(n.told[tenant], c.Revision)
			n.mu.Unlock()
		},
	}); err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	for _, o := range p.nodes {
		_, _ = o.meta.Join(name), n.meta.Join(o.name)
	}
	p.nodes[name] = n
	p.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		_ = n.meta.Run(ctx)
		close(done)
	}()
	end = sync.OnceFunc(func() {
		cancel()
		<-done
		p.mu.Lock()
		delete(p.nodes, name)
		p.mu.Unlock()
	})
	t.Cleanup(end)
	return n, end
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not %s", what)
		}
	}
}

func shared() (all []partition.ID) {
	for p := range partition.ID(parts - reserved) {
		all = append(all, p)
	}
	return all
}

// Brokers that do not reach each other draw the same cell, which merges; a record of all
// partitions is not made.
func TestOpen_Drawn(t *testing.T) {
	p := &peers{nodes: map[string]*node{}}
	a, _ := p.start(t, "a", mem.New())
	b, _ := p.start(t, "b", mem.New())
	want := link.Cell("acme", 3, shared())
	for _, n := range []*node{a, b, a} {
		if c := n.Open("acme", 3); !slices.Equal(c.Partitions, want) || c.Revision != 1 || c.Placed() {
			t.Errorf("%s draws %+v, expected %v", n.name, c, want)
		}
	}
	for _, m := range []int{0, parts - reserved, 99} {
		if c := a.Open("large", m); !slices.Equal(c.Partitions, shared()) || c.Revision != 0 {
			t.Errorf("of %d partitions: %+v", m, c)
		}
	}
	if c, ok := a.Cell("large"); ok {
		t.Errorf("there is a record of all partitions: %+v", c)
	}
	c := b.Open("late", 2)
	p.mu.Lock()
	p.linked = true
	p.mu.Unlock()
	eventually(t, "replicated", func() bool {
		x, ok := a.Cell("late")
		return ok && slices.Equal(x.Partitions, c.Partitions) && a.meta.Stats().Contexts == 0 && b.meta.Stats().Contexts == 0
	})
	// What was recorded holds whatever is drawn from then on.
	if c := a.Open("late", 5); len(c.Partitions) != 2 {
		t.Errorf("another m gives %+v", c)
	}
}

// What an operator says has a higher revision than what was drawn, also where that was
// done at the same time elsewhere; a tenant that is given back is drawn again.
func TestPlace(t *testing.T) {
	p := &peers{nodes: map[string]*node{}}
	a, _ := p.start(t, "a", mem.New())
	b, _ := p.start(t, "b", mem.New())
	b.Open("acme", 3)
	c, err := a.Place(t.Context(), "acme", []partition.ID{13, 12, 13})
	if err != nil || !slices.Equal(c.Partitions, []partition.ID{12, 13}) || c.Revision != 2 || !c.Placed() {
		t.Fatalf("%+v, %v", c, err)
	}
	p.mu.Lock()
	p.linked = true
	p.mu.Unlock()
	for _, n := range []*node{a, b} {
		eventually(t, n.name+" has it", func() bool {
			n.mu.Lock()
			defer n.mu.Unlock()
			x, _ := n.Cell("acme")
			return x.Revision == 2 && n.told["acme"] == 2
		})
		if c := n.Open("acme", 3); !slices.Equal(c.Partitions, []partition.ID{12, 13}) {
			t.Errorf("%s opens %+v", n.name, c)
		}
	}
	if c, err := b.Place(t.Context(), "acme", nil); err != nil || c.Revision != 3 {
		t.Errorf("%+v, %v", c, err)
	}
	eventually(t, "given back", func() bool {
		x, _ := a.Cell("acme")
		return x.Revision == 3 && len(x.Partitions) == 0
	})
	if c := a.Open("acme", 3); !slices.Equal(c.Partitions, link.Cell("acme", 3, shared())) || c.Revision != 3 {
		t.Errorf("drawn again: %+v", c)
	}
	for name, list := range map[string][]partition.ID{"": {1}, "acme": {parts}} {
		if _, err := a.Place(t.Context(), name, list); !errs.Is(err, errs.Invalid) {
			t.Errorf("%q in %v: %v", name, list, err)
		}
	}
}

// What is said of partitions and of the cluster holds at once, everywhere, and after a
// start on the same store.
func TestClassesAndSettings(t *testing.T) {
	p := &peers{nodes: map[string]*node{}, linked: true}
	store := mem.New()
	a, end := p.start(t, "a", store)
	b, _ := p.start(t, "b", mem.New())
	if a.Replicas(3) != 2 || a.Label(3) != "" || a.Moves() != 4 || a.CatchUp() != 64<<20 || len(a.Labelled("gold")) != 0 {
		t.Error("the defaults are others")
	}
	gold := layout.Class{Label: "gold", Replicas: 3}
	if err := a.SetClasses(t.Context(), map[partition.ID]layout.Class{3: gold, 14: {Label: "gold"}}); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"replicas": "1", "moves": "9", "catch_up_mib": "8"} {
		if err := a.Set(t.Context(), name, value); err != nil {
			t.Fatal(err)
		}
	}
	look := func(n *node) {
		t.Helper()
		eventually(t, n.name+" has it", func() bool {
			return n.Class(3) == gold && n.Replicas(14) == 1 && n.Replicas(0) == 1 && n.Moves() == 9 && n.CatchUp() == 8<<20 &&
				slices.Equal(n.Labelled("gold"), []partition.ID{3, 14}) && n.Said(14).Replicas == 0
		})
	}
	look(a)
	look(b)
	end()
	a, _ = p.start(t, "a", store)
	if a.Class(3) != gold || a.Moves() != 9 {
		t.Errorf("after a start: %+v, %d", a.Class(3), a.Moves())
	}
	if err := b.Set(t.Context(), "moves", "default"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "taken back", func() bool { return a.Moves() == 4 && b.Moves() == 4 })
	for _, s := range b.Settings() {
		if s.Set != (s.Name != "moves") || s.Doc == "" || s.Value < s.Least || s.Value > s.Most {
			t.Errorf("%+v", s)
		}
	}
	for name, value := range map[string]string{"moves": "65", "replicas": "0", "catch_up_mib": "x"} {
		if err := a.Set(t.Context(), name, value); !errs.Is(err, errs.Invalid) {
			t.Errorf("%s = %s: %v", name, value, err)
		}
	}
	if err := a.Set(t.Context(), "nonsense", "1"); !errs.Is(err, errs.NotFound) {
		t.Error(err)
	}
	for p, c := range map[partition.ID]layout.Class{parts: {}, 1: {Replicas: 6}, 2: {Label: layout.Shared}} {
		if err := a.SetClasses(t.Context(), map[partition.ID]layout.Class{p: c}); !errs.Is(err, errs.Invalid) {
			t.Errorf("%d %+v: %v", p, c, err)
		}
	}
}

func TestParseCell(t *testing.T) {
	list := []partition.ID{0, 3, 65535}
	for _, c := range []layout.Cell{
		{Partitions: list},
		{Partitions: list, Stage: layout.Leaving, To: []partition.ID{3, 4}},
		{Partitions: list, Stage: layout.Arriving, To: []partition.ID{}},
		{Purged: true},
	} {
		if got, err := layout.ParseCell(layout.AppendCell(nil, c)); err != nil || !reflect.DeepEqual(got, c) {
			t.Errorf("%+v, %v, expected %+v", got, err, c)
		}
	}
	for _, bad := range [][]byte{
		nil,
		{3, 0, 1},
		{4},
		{1, 0},
		{1, 0, 3, 0, 1},
		{2, 0, 0, 0, 0, 1},
		{2, 3, 0, 0, 0, 1},
		{2, 1, 0, 0, 0, 1},
		{2, 2, 0, 1, 0, 1, 0, 2},
		{2, 1, 0, 1, 0, 1},
		{2, 1, 0, 9, 0, 1},
		{2, 2, 0, 0},
	} {
		if got, err := layout.ParseCell(bad); err == nil {
			t.Errorf("%x is %v", bad, got)
		}
	}
}

// A tenant that has something goes through its stages, of which each broker that says the
// next one says the same; no other place is taken meanwhile.
func TestMove(t *testing.T) {
	p := &peers{nodes: map[string]*node{}, linked: true}
	a, _ := p.start(t, "a", mem.New())
	b, end := p.start(t, "b", mem.New())
	from, to := link.Cell("acme", 3, shared()), []partition.ID{1, 13}
	a.Open("acme", 3)
	at := func(want layout.Cell) {
		t.Helper()
		for _, n := range []*node{a, b} {
			eventually(t, n.name+" has it", func() bool {
				c, _ := n.Cell("acme")
				_, moves := n.Moving()["acme"]
				return c.Stage == want.Stage && c.Revision == want.Revision && slices.Equal(c.Partitions, want.Partitions) && slices.Equal(c.To, want.To) &&
					moves == (want.Stage != layout.Settled)
			})
		}
	}
	refused := func(what string, err error, kind errs.Kind) {
		t.Helper()
		if !errs.Is(err, kind) {
			t.Errorf("%s: %v", what, err)
		}
	}
	at(layout.Cell{Partitions: from, Revision: 1})
	_, err := a.Move(t.Context(), "acme", from, 3)
	refused("to where it is", err, errs.Conflict)
	_, err = a.Move(t.Context(), "acme", nil, 3)
	refused("to nowhere", err, errs.Invalid)
	_, err = a.Move(t.Context(), "acme", []partition.ID{parts}, 3)
	refused("to what there is not", err, errs.Invalid)
	c, err := a.Move(t.Context(), "acme", []partition.ID{13, 1, 1}, 3)
	if err != nil {
		t.Fatal(err)
	}
	at(layout.Cell{Partitions: from, To: to, Stage: layout.Leaving, Revision: 2})
	_, err = b.Move(t.Context(), "acme", from, 3)
	refused("while it moves", err, errs.Conflict)
	_, err = b.Place(t.Context(), "acme", from)
	refused("placed while it moves", err, errs.Conflict)
	for _, n := range []*node{a, b, a} { // two that see to it, one of them twice
		if err := n.Advance(t.Context(), "acme", c); err != nil {
			t.Fatal(err)
		}
	}
	arriving := layout.Cell{Partitions: to, Stage: layout.Arriving, Revision: 3}
	at(arriving)
	store := b.store
	end()
	b, _ = p.start(t, "b", store) // which knows it from its disk
	at(arriving)
	if err := b.Advance(t.Context(), "acme", arriving); err != nil {
		t.Fatal(err)
	}
	at(layout.Cell{Partitions: to, Revision: 4})
	back, err := a.Move(t.Context(), "acme", from, 3)
	if err != nil {
		t.Fatal(err)
	}
	at(layout.Cell{Partitions: to, To: from, Stage: layout.Leaving, Revision: 5})
	for _, n := range []*node{a, b} {
		if err := n.Return(t.Context(), "acme", back); err != nil {
			t.Fatal(err)
		}
	}
	at(layout.Cell{Partitions: to, Revision: 6})
	if err := a.Advance(t.Context(), "acme", back); err != nil {
		t.Fatal(err)
	}
	at(layout.Cell{Partitions: to, Revision: 6}) // who comes late changes nothing
}

// A tenant that was given back to its plan leaves the partitions that its plan gives it, and has
// those when it stays: its clients are found in no others.
func TestMove_GivenBack(t *testing.T) {
	p := &peers{nodes: map[string]*node{}, linked: true}
	a, _ := p.start(t, "a", mem.New())
	a.Open("acme", 4)
	if _, err := a.Place(t.Context(), "acme", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Move(t.Context(), "acme", []partition.ID{13}, -1); !errs.Is(err, errs.Conflict) {
		t.Errorf("it leaves nobody knows what: %v", err)
	}
	lives := link.Cell("acme", 4, shared())
	c, err := a.Move(t.Context(), "acme", []partition.ID{13}, 4)
	if err != nil || !slices.Equal(c.Partitions, lives) {
		t.Fatalf("it leaves %v, %v, and lives in %v", c.Partitions, err, lives)
	}
	if err := a.Return(t.Context(), "acme", c); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it stays where its clients are", func() bool {
		now, _ := a.Cell("acme")
		return now.Stage == layout.Settled && slices.Equal(now.Partitions, lives) && slices.Equal(a.Open("acme", 4).Partitions, lives)
	})
	// A tenant of which there is no record has all, whether its plan is known or not.
	if c, err := a.Move(t.Context(), "large", []partition.ID{13}, -1); err != nil || !slices.Equal(c.Partitions, shared()) {
		t.Errorf("it leaves %v, %v", c.Partitions, err)
	}
}
