// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"sync"
	"testing"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/infra/kv/mem"
	"github.com/manormq/manor/infra/link"
)

// stuck is a store that applies nothing before it is let go.
type stuck struct {
	*mem.Store
	gate chan struct{}
}

func (s *stuck) Apply(b *kv.Batch, sync bool) error {
	<-s.gate
	return s.Store.Apply(b, sync)
}

// A broker that commits nothing, as one that does not know that it is deposed, tells nobody
// who asks for a session that there is none.
func TestOpened_NoneIsCommitted(t *testing.T) {
	w := newWorld(t, 1, false)
	w.stop()
	store := &stuck{Store: mem.New(), gate: make(chan struct{})}
	w.store = store
	w.start(1)
	letGo := sync.OnceFunc(func() { close(store.gate) })
	t.Cleanup(letGo) // before the world ends
	asks, ends := w.open("asks", persistent), w.open("ends", expiry(0), func(o *link.Open) { o.CleanStart = false })
	w.connect("new", clean)
	for _, c := range []*client{asks, ends} {
		c.mu.Lock()
		if len(c.got) > 0 {
			t.Errorf("channel %d is told %+v", c.id, c.got[0].DownFrame)
		}
		c.mu.Unlock()
	}
	letGo()
	for _, c := range []*client{asks, ends} {
		if r := c.want(link.DownOpened); r.SessionPresent {
			t.Errorf("channel %d is told that there is a session", c.id)
		}
	}
}

// What many sessions have in common is there once, and costs one that comes nothing: not
// even garbage, of which each connection would be as much larger.
func TestShared(t *testing.T) {
	kept := map[link.Limits]*link.Limits{}
	first := shared(kept, unlimited)
	if *first != unlimited {
		t.Errorf("kept %+v", *first)
	}
	if n := testing.AllocsPerRun(100, func() {
		if shared(kept, unlimited) != first {
			t.Error("a second copy was made")
		}
	}); n != 0 {
		t.Errorf("%v allocations for what is there", n)
	}
}
