// SPDX-License-Identifier: Apache-2.0

package host_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/infra/kv/mem"
	"github.com/manormq/manor/services/broker/host"
	"github.com/manormq/manor/services/broker/partition"
)

// tags are what was acknowledged, by partition.
type tags struct {
	mu    sync.Mutex
	acked map[partition.ID][]uint64 // guarded by mu
}

// Whatever happens to one host at a time, what was acknowledged is on all that are
// in sync when it is over. services/sim says so of the machines in far worse worlds;
// here it is their shell that is tried.
func TestHost_Chaos(t *testing.T) {
	seeds := uint64(4)
	if testing.Short() {
		seeds = 1
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inBubble(t, []string{"a", "b", "c"}, func(b *bubble) { chaos(b, rand.New(rand.NewPCG(seed, 0))) })
		})
	}
}

func chaos(b *bubble, r *rand.Rand) {
	// The clock of a bubble begins in another century, and disks are lost here.
	run := uint64(100)
	b.tweak = func(c *host.Config) {
		run++
		c.Run = run
	}
	kept, tag := tags{acked: map[partition.ID][]uint64{}}, uint64(0)
	load := func(d time.Duration) {
		for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Duration(r.IntN(40)) * time.Millisecond) {
			p := partition.ID(r.IntN(few))
			at := b.owner(p)
			if at == "" {
				continue
			}
			tag++
			now := tag
			var batch kv.Batch
			batch.Put(tagKey(p, now), make([]byte, r.IntN(300)))
			b.hosts[at].Append(p, b.hosts[at].Entry(p).Table.Epoch, batch.Encoded(), func(err error) {
				if err == nil {
					kept.mu.Lock()
					kept.acked[p] = append(kept.acked[p], now)
					kept.mu.Unlock()
				}
			})
		}
	}
	for range 25 {
		victim := b.names[r.IntN(len(b.names))]
		switch r.IntN(5) {
		case 0: // killed
			b.stops[victim]()
			load(time.Duration(r.IntN(8000)) * time.Millisecond)
			b.start(victim)
		case 1: // its disk is lost, when it is not the only one that has something
			load(10 * time.Second) // a member that lost its own is not in sync any more
			b.eventually("settled before a disk is lost", b.settled)
			b.stops[victim]()
			b.stores[victim] = mem.New()
			load(time.Duration(r.IntN(8000)) * time.Millisecond)
			b.start(victim)
		case 2: // its links are cut
			b.setCut(victim, true)
			load(time.Duration(r.IntN(8000)) * time.Millisecond)
			b.setCut(victim, false)
		case 3: // the bus is away, and somebody killed meanwhile
			b.bus.SetDown(true)
			load(time.Duration(r.IntN(4000)) * time.Millisecond)
			b.stops[victim]()
			load(time.Duration(r.IntN(4000)) * time.Millisecond)
			b.bus.SetDown(false)
			b.start(victim)
		case 4: // nothing, for long enough for moves
			load(15 * time.Second)
		}
		load(time.Duration(r.IntN(3000)) * time.Millisecond)
	}
	load(10 * time.Second) // as above
	time.Sleep(time.Second)
	b.eventually("settled at the end", b.settled)
	kept.mu.Lock()
	defer kept.mu.Unlock()
	found := 0
	for p, acked := range kept.acked {
		e := b.hosts[b.owner(p)].Entry(p).Table
		for _, member := range e.InSync {
			for _, tag := range acked {
				if !b.has(string(member), p, tag) {
					b.t.Fatalf("%s lacks append %d to partition %d, owner %s", member, tag, p, e.Owner)
				}
				found++
			}
		}
	}
	for name, h := range b.hosts {
		if h.Stats().Alarms > 0 {
			b.t.Errorf("%s gave an alarm", name)
		}
	}
	b.t.Logf("%d of %d appends acknowledged, %d looked up", found/2, tag, found)
}
