// SPDX-License-Identifier: Apache-2.0

package host_test

import (
	"sync"
	"testing"
	"time"

	"github.com/manormq/manor/services/broker/host"
	"github.com/manormq/manor/services/broker/partition"
)

// ceder keeps what is to be ceded, until it is let go.
type ceder struct {
	mu    sync.Mutex
	asked map[partition.ID]func() // guarded by mu
	total int                     // guarded by mu
}

func (c *ceder) cede(p partition.ID, done func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked[p] = done
	c.total++
}

// waiting is how many have been asked for and not let go.
func (c *ceder) waiting() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.asked)
}

func (c *ceder) letGo() {
	c.mu.Lock()
	asked := c.asked
	c.asked = map[partition.ID]func(){}
	c.mu.Unlock()
	for _, done := range asked {
		done()
	}
}

func inCeding(t *testing.T, f func(b *bubble, c *ceder)) {
	inBubble(t, []string{"b1", "b2"}, func(b *bubble) {
		c := &ceder{asked: map[partition.ID]func(){}}
		b.tweak = func(config *host.Config) {
			if config.Self == "b1" {
				config.Cede = c.cede
			}
		}
		b.stops["b1"]()
		b.start("b1")
		b.eventually("served and in sync", b.settled)
		b.eventually("b1 owns some", func() bool { owned, _ := b.hosts["b1"].Holds("b1"); return owned > 0 })
		time.Sleep(15 * time.Second) // an owner that is new keeps what it has for a while
		f(b, c)
	})
}

// A partition is handed over when it was ceded, and serves until then; two are at a
// time.
func TestCede(t *testing.T) {
	inCeding(t, func(b *bubble, c *ceder) {
		h := b.hosts["b1"]
		owned, _ := h.Holds("b1")
		h.SetStopping(true)
		b.eventually("asked", func() bool { return c.waiting() == min(owned, 2) })
		time.Sleep(10 * time.Second)
		if now, _ := h.Holds("b1"); now != owned || c.waiting() != min(owned, 2) {
			t.Errorf("%d of %d partitions are left, %d asked for", now, owned, c.waiting())
		}
		for p := range partition.ID(few) {
			if h.Entry(p).Serving {
				if err := b.append("b1", p, 1); err != nil {
					t.Errorf("partition %d: %v", p, err)
				}
			}
		}
		b.eventually("handed over", func() bool {
			c.letGo()
			now, _ := h.Holds("b1")
			return now == 0 && b.settled()
		})
		if c.total != owned {
			t.Errorf("%d were asked for, of %d", c.total, owned)
		}
	})
}

// A partition that was ceded and is not to move any more is served again where it was, and
// may go later.
func TestCede_ComesToNothing(t *testing.T) {
	inCeding(t, func(b *bubble, c *ceder) {
		h := b.hosts["b1"]
		owned, _ := h.Holds("b1")
		h.SetStopping(true)
		b.eventually("asked", func() bool { return c.waiting() > 0 })
		h.SetStopping(false)
		time.Sleep(3 * time.Second) // a controller has looked
		b.mu.Lock()
		before, asked := len(b.changes["b1"]), c.waiting()
		b.mu.Unlock()
		c.letGo()
		b.eventually("told to serve again", func() bool {
			if c.waiting() > 0 {
				t.Fatal("asked again, though nothing is to move")
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			n := 0
			for _, x := range b.changes["b1"][before:] {
				if x.Role == partition.Serving {
					n++
				}
			}
			return n >= asked
		})
		if now, _ := h.Holds("b1"); now != owned {
			t.Errorf("b1 owns %d of %d", now, owned)
		}
		h.SetStopping(true)
		b.eventually("handed over", func() bool {
			c.letGo()
			now, _ := h.Holds("b1")
			return now == 0
		})
	})
}
