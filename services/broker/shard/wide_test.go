// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"fmt"
	"iter"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/services/broker/partition"
)

// Messages cross a cluster while its partitions move, its links are lost and its
// brokers die: nothing that was acknowledged is lost, what is exact comes once, the
// messages of a publisher come in their order, and nothing is left of it all. WIDE_SEEDS
// says how many worlds there are, WIDE_FROM the first.
func TestWide(t *testing.T) {
	for seed := range wideSeeds() {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) { playWide(t, newWide(t, seed, 3), seed) })
	}
}

// wideSeeds are the worlds to be played.
func wideSeeds() iter.Seq[uint64] {
	seeds, from := 2, 1
	if v, err := strconv.Atoi(os.Getenv("WIDE_SEEDS")); err == nil {
		seeds = v
	}
	if v, err := strconv.Atoi(os.Getenv("WIDE_FROM")); err == nil {
		from = v
	}
	return func(yield func(uint64) bool) {
		for seed := from; seed < from+seeds && yield(uint64(seed)); seed++ {
		}
	}
}

const (
	widePublishers = 4
	wideMessages   = 150
)

func playWide(t *testing.T, w *wide, seed uint64) {
	w.spread = int(seed%4) * 2
	var all, subs, group, pubs []*wideClient
	var lives sync.WaitGroup
	add := func(id string, total int, filters ...string) *wideClient {
		c := w.client(id, filters, total)
		all = append(all, c)
		lives.Go(c.live)
		return c
	}
	for i := range 5 {
		subs = append(subs, add(fmt.Sprint("s", i), 0, [][]string{{"t/#"}, {"t/+"}, {"t/#", "t/p1"}}[i%3]...))
	}
	for i := range 3 {
		group = append(group, add(fmt.Sprint("m", i), 0, "$share/g/t/#"))
	}
	await := func(what string, d time.Duration, ok func() string) {
		t.Helper()
		for end := time.Now().Add(d); ; time.Sleep(time.Millisecond) {
			why := ok()
			if why == "" {
				return
			}
			if time.Now().After(end) {
				t.Errorf("not %s: %s", what, why)
				return
			}
		}
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
		pubs = append(pubs, add(fmt.Sprint("p", i), wideMessages))
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
	stop := w.roam()
	for end := time.Now().Add(10 * time.Second); published() != "" && time.Now().Before(end); {
		w.chaos()
		w.mu.Lock()
		pause, victim := time.Duration(w.rand.IntN(12))*time.Millisecond, all[w.rand.IntN(len(all))]
		drop := w.rand.IntN(3) == 0
		w.mu.Unlock()
		if drop {
			victim.mu.Lock()
			victim.drop = true
			victim.mu.Unlock()
		}
		time.Sleep(pause)
	}
	stop()
	await("published", 10*time.Second, published)
	if t.Failed() {
		t.Log(w.leftovers())
		for _, c := range all {
			t.Log(c.state())
		}
	}
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
	if t.Failed() {
		for _, c := range all {
			t.Log(c.state())
		}
		t.Log(w.sessions())
	}
	var left []string
	await("at rest", 5*time.Second, func() string {
		if left = w.leftovers(); len(left) > 0 {
			return strings.Join(left, "; ")
		}
		return ""
	})
	w.retained(t, pubs)
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
	shared := map[string]int{}
	for _, c := range group {
		for k, n := range c.counts() {
			shared[k] += n
		}
	}
	once(t, "the group", pubs, shared)
	w.undropped(t)
	w.mu.Lock()
	defer w.mu.Unlock()
	t.Logf("%+v", w.stats)
}

// undropped checks that no broker, of those that have died neither, has dropped anything.
func (w *wide) undropped(t *testing.T) {
	t.Helper()
	w.mu.Lock()
	nodes := append(slices.Clone(w.nodes), w.fallen...)
	w.mu.Unlock()
	for _, n := range nodes {
		for _, s := range n.set.shards {
			s.stats.Drops(func(reason string, k uint64) {
				if k > 0 {
					t.Errorf("shard %d of %s has dropped %d: %s", s.index, n.name, k, reason)
				}
			})
		}
	}
}

// once checks that each message has come, and once if it is exact.
func once(t *testing.T, who string, pubs []*wideClient, got map[string]int) {
	t.Helper()
	var missing, double []string
	for _, p := range pubs {
		for k := range wideMessages {
			m := p.message(k)
			switch n := got[string(m.Payload)]; {
			case n == 0:
				missing = append(missing, fmt.Sprintf("%s at %s", m.Payload, m.QoS))
			case n > 1 && m.QoS == 2:
				double = append(double, fmt.Sprintf("%s %d times", m.Payload, n))
			}
		}
	}
	if len(missing)+len(double) > 0 {
		t.Errorf("%s lacks %q, has more than once %q", who, missing, double)
	}
}

// retained checks that the last retained message of each publisher is what is retained.
func (w *wide) retained(t *testing.T, pubs []*wideClient) {
	t.Helper()
	for p := range partition.ID(wideParts) {
		w.served(p) // whose owner may be about to take it up
	}
	want := (wideMessages-6)/10*10 + 5
	for _, p := range pubs {
		a := w.nodes[0].set.Ask(&link.Query{Kind: link.QueryRetained, Tenant: "acme", Filter: "t/" + string(p.id)})
		payload := fmt.Sprintf("%s %d", p.id, want)
		if a.Error != "" || len(a.Retained) != 1 || string(a.Retained[0].Message.Payload) != payload {
			t.Errorf("retained for %s: %q, %+v, expected %q", p.id, a.Error, a.Retained, payload)
		}
	}
}
