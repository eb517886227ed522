// SPDX-License-Identifier: Apache-2.0

package metadata_test

import (
	"flag"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/manormq/manor/services/broker/metadata"
)

var (
	seedFlag  = flag.Uint64("metadata.seed", 0, "run this seed of the world alone")
	seedsFlag = flag.Uint64("metadata.seeds", 250, "how many seeds of the world to run")
)

// history is what one seed does, and what must be true at its end.
type history struct {
	*world
	// last is the newest acknowledged write of each key that has one writer; "" is
	// a delete. What a lost disk alone may have had is not in it.
	last map[metadata.Key]string
	own  map[metadata.Key]string // its writer
	// told are the changes of membership that a broker has not been told yet.
	told map[string][]metadata.Event
	made int
	// whole: no disk is lost, and the members stay the same.
	whole bool
}

func (h *history) any() *node { l := h.live(); return l[h.r.IntN(len(l))] }

// write writes a key of its own, or one that all write. The turn may go on.
func (h *history) write(n *node) {
	if n.hold {
		n.hold = false
		n.step()
	}
	h.wrote++
	key := metadata.Key{Space: "own", Name: fmt.Sprintf("%s.%d/%d", n.name, n.lives, h.r.IntN(8))}
	shared := h.r.IntN(3) == 0
	if shared {
		key = metadata.Key{Space: "shared", Name: fmt.Sprint(h.r.IntN(5))}
	}
	x := metadata.Mutation{Key: key, Value: fmt.Appendf(nil, "%s %d", n.name, h.wrote), Delete: h.r.IntN(3) == 0}
	if shared && h.r.IntN(2) == 0 {
		x.Rank = uint64(h.r.IntN(4)) + 1
	}
	id := h.wrote
	value := string(x.Value)
	n.step(metadata.Write{ID: id, Mutations: []metadata.Mutation{x}})
	if !n.acked[id] || shared {
		return
	}
	h.own[key] = n.name
	if h.last[key] = value; x.Delete {
		h.last[key] = ""
	}
}

// writeAndDie writes in a turn whose batch is not written: nobody was told.
func (h *history) writeAndDie(n *node) {
	n.hold = true
	n.step(metadata.Write{ID: 1 << 60, Mutations: []metadata.Mutation{{Key: metadata.Key{Space: "own", Name: fmt.Sprintf("%s.%d/0", n.name, n.lives)}, Value: []byte("never")}}})
	if h.r.IntN(2) == 0 {
		_ = n.m.Flush(&n.fx)
	}
	n.crash()
}

func (h *history) forget(n *node) {
	for k, name := range h.own {
		if name == n.name {
			delete(h.last, k)
		}
	}
}

func (h *history) tell(e metadata.Event, but *node) {
	for _, n := range h.live() {
		if n != but {
			h.told[n.name] = append(h.told[n.name], e)
		}
	}
}

func (h *history) hearOne(n *node) {
	if l := h.told[n.name]; len(l) > 0 {
		h.told[n.name] = l[1:]
		n.step(l[0])
	}
}

func (h *history) step() {
	n := h.any()
	h.now = h.now.Add(time.Duration(h.r.IntN(100)) * time.Millisecond)
	switch p := h.r.IntN(1000); {
	case h.whole && p >= 920 && p < 938:
		h.tick(n)
	case p < 300:
		h.write(n)
	case p < 700:
		h.deliver()
	case p < 880:
		h.now = h.now.Add(time.Duration(h.r.IntN(500)) * time.Millisecond)
		h.tick(n)
	case p < 910:
		n.crash()
	case p < 920:
		h.writeAndDie(n)
	case p < 926:
		h.forget(n)
		h.told[n.name] = nil
		n.loseDisk()
	case p < 932:
		if len(h.live()) > 2 {
			h.forget(n)
			n.left = true
			h.tell(metadata.Leave{Name: n.name}, n)
		}
	case p < 938:
		if len(h.live()) < 5 {
			h.made++
			x := h.add(fmt.Sprintf("c%d", h.made))
			for _, name := range h.names() {
				x.step(metadata.Join{Name: name})
			}
			h.tell(metadata.Join{Name: x.name}, x)
		}
	case p < 960:
		h.hearOne(n)
	case p < 980:
		h.split[[2]string{n.name, h.any().name}] = true
	default:
		clear(h.split)
	}
}

func runSeed(t *testing.T, seed uint64) {
	w := newWorld(t, seed, 3+int(seed%3))
	h := &history{world: w, last: map[metadata.Key]string{}, own: map[metadata.Key]string{}, told: map[string][]metadata.Event{}}
	w.calm = seed%4 == 0 // one in four has no fault but crashes
	h.whole = seed%3 == 0
	for range 400 {
		h.step()
	}
	for _, n := range h.live() {
		for len(h.told[n.name]) > 0 {
			h.hearOne(n)
		}
	}
	w.settle()
	w.check()
	for _, n := range h.live() {
		if s := n.m.Stats(); h.whole && s.Lost+s.RolledBack > 0 {
			t.Errorf("%s gave something up though nothing broke: %+v", n.name, s)
		}
	}
	view := maps.Clone(h.live()[0].view)
	for k, want := range h.last {
		if got := view[k]; got != want {
			t.Errorf("%v is %q, acknowledged was %q", k, got, want)
		}
	}
	if t.Failed() {
		t.Fatalf("seed %d: go test ./services/broker/metadata -run TestWorld -metadata.seed %d", seed, seed)
	}
}

// Whatever is lost, doubled, late or dies: when faults end all brokers know the
// same, no acknowledged write is missing, and nothing is left of what was deleted.
func TestWorld(t *testing.T) {
	if *seedFlag != 0 {
		runSeed(t, *seedFlag)
		return
	}
	seeds := *seedsFlag
	if testing.Short() {
		seeds = min(seeds, 60)
	}
	for seed := range seeds {
		runSeed(t, seed+1)
	}
}
