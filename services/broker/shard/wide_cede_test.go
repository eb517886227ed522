// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/manormq/manor/services/broker/partition"
)

// Partitions move as planned while clients of every kind talk: no connection is opened
// again, also of those whose session ends with it; each gets all that was acknowledged,
// in order and at QoS 2 once; no will is sent; and nothing is left of it all.
// WIDE_SEEDS says how many worlds there are.
func TestWide_Planned(t *testing.T) {
	for seed := range wideSeeds() {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) { playPlanned(t, newWide(t, seed, 3), seed) })
	}
}

func playPlanned(t *testing.T, w *wide, seed uint64) {
	w.spread = int(seed%4) * 2
	var all, subs, group, pubs []*wideClient
	var lives sync.WaitGroup
	add := func(id string, total int, clean bool, filters ...string) *wideClient {
		c := w.client(id, filters, total)
		c.clean, c.will = clean, "wills/"+id
		all = append(all, c)
		lives.Go(c.live)
		return c
	}
	wills := add("wills", 0, false, "wills/#")
	for i := range 6 {
		subs = append(subs, add(fmt.Sprint("s", i), 0, i%2 == 0, [][]string{{"t/#"}, {"t/+"}, {"t/#", "t/p1"}}[i%3]...))
	}
	for i := range 4 {
		group = append(group, add(fmt.Sprint("m", i), 0, i%2 == 0, "$share/g/t/#"))
	}
	await := func(what string, d time.Duration, ok func() string) {
		t.Helper()
		why := ""
		for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Millisecond) {
			if why = ok(); why == "" {
				return
			}
		}
		t.Errorf("not %s: %s", what, why)
	}
	await("subscribed", 10*time.Second, func() string {
		for _, c := range all {
			if !c.isReady() {
				return string(c.id)
			}
		}
		return ""
	})
	for i := range widePublishers {
		pubs = append(pubs, add(fmt.Sprint("p", i), wideMessages, i%2 == 0))
	}
	published := func() string {
		for _, c := range pubs {
			c.mu.Lock()
			n := c.done
			c.mu.Unlock()
			if n < wideMessages {
				return fmt.Sprintf("%s has %d of %d acknowledged", c.id, n, wideMessages)
			}
		}
		return ""
	}
	moves, stop := 0, w.roam()
	for end := time.Now().Add(10 * time.Second); (published() != "" || moves < 40) && time.Now().Before(end); moves++ {
		w.mu.Lock()
		p, n := partition.ID(w.rand.IntN(wideParts)), w.nodes[w.rand.IntN(len(w.nodes))]
		w.mu.Unlock()
		w.give(p, n, true)
	}
	stop()
	await("published", 10*time.Second, published)
	total := widePublishers * wideMessages
	await("delivered", 10*time.Second, func() string {
		for _, c := range subs {
			if n := len(c.counts()); n < total {
				return fmt.Sprintf("%s has %d of %d", c.id, n, total)
			}
		}
		n := 0
		for _, c := range group {
			n += len(c.counts())
		}
		if n < total {
			return fmt.Sprintf("the group has %d of %d", n, total)
		}
		return ""
	})
	await("at rest", 5*time.Second, func() string { return strings.Join(w.leftovers(), "; ") })
	for _, c := range all {
		c.mu.Lock()
		if c.opened != 1 {
			t.Errorf("%s has opened %d connections", c.id, c.opened)
		}
		c.mu.Unlock()
	}
	if got := wills.counts(); len(got) > 0 {
		t.Errorf("wills were sent: %v", got)
	}
	for _, c := range all {
		c.mu.Lock()
		c.quit = true
		c.mu.Unlock()
	}
	lives.Wait()
	for _, c := range subs {
		once(t, string(c.id), pubs, c.counts())
		for _, s := range c.disorder() {
			t.Error(s)
		}
	}
	shared, gone := map[string]int{}, 0
	for _, c := range group {
		for k, n := range c.counts() {
			shared[k] += n
		}
	}
	once(t, "the group", pubs, shared)
	for _, c := range all {
		gone += c.moved
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	t.Logf("%d moves, %d connections went on elsewhere, %+v", moves, gone, w.stats)
}
