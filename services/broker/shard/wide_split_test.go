// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/cluster"
	"github.com/manormq/manor/services/broker/partition"
)

// splitUp has no broker reach another, or all.
func (w *wide) splitUp(on bool) {
	var lost []*wideRequest
	w.mu.Lock()
	w.split = on
	for _, n := range w.nodes {
		for _, l := range n.links {
			lost = append(lost, w.cutLocked(l)...)
		}
	}
	w.mu.Unlock()
	for _, r := range lost {
		r.done(cluster.Answer{Err: cluster.ErrLost})
	}
}

// split is a world in which clients publish while no broker reaches another.
type split struct {
	*wide
	t          *testing.T
	subs, pubs []*wideClient
	lives      sync.WaitGroup
}

func newSplit(t *testing.T, seed uint64, handOff bool) *split {
	x := &split{wide: newWide(t, seed, 3), t: t}
	for _, n := range x.nodes {
		n.set.handOffs.after = 20
	}
	add := func(id string, total int, filters ...string) *wideClient {
		c := x.client(id, filters, total)
		c.limits = unlimited
		c.limits.Settings.HandOff = handOff
		x.lives.Go(c.live)
		return c
	}
	t.Cleanup(func() {
		for _, c := range append(x.subs, x.pubs...) {
			c.mu.Lock()
			c.quit = true
			c.mu.Unlock()
		}
		x.lives.Wait()
	})
	for i := range 6 {
		x.subs = append(x.subs, add(fmt.Sprint("s", i), 0, "t/#"))
	}
	x.await("subscribed", func() string {
		for _, c := range x.subs {
			if !c.isReady() {
				return string(c.id)
			}
		}
		return ""
	})
	x.splitUp(true)
	for i := range widePublishers {
		x.pubs = append(x.pubs, add(fmt.Sprint("p", i), wideMessages))
	}
	return x
}

func (x *split) await(what string, ok func() string) {
	x.t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		why := ok()
		if why == "" {
			return
		}
		if time.Now().After(end) {
			for _, c := range append(x.subs, x.pubs...) {
				x.t.Log(c.state())
			}
			x.t.Fatalf("not %s: %s", what, why)
		}
	}
}

// published says who has less than n of its publishes acknowledged.
func (x *split) published(n int) string {
	for _, c := range x.pubs {
		c.mu.Lock()
		done := c.done
		c.mu.Unlock()
		if done < n {
			return fmt.Sprintf("%s has %d of %d acknowledged", c.id, done, n)
		}
	}
	return ""
}

// delivered waits until every subscriber has everything, and checks it.
func (x *split) delivered() {
	x.t.Helper()
	x.await("delivered", func() string {
		for _, c := range x.subs {
			if n := len(c.counts()); n < widePublishers*wideMessages {
				return fmt.Sprintf("%s has %d", c.id, n)
			}
		}
		return ""
	})
	x.await("at rest", func() string { return strings.Join(x.leftovers(), "; ") })
	for _, c := range x.subs {
		once(x.t, string(c.id), x.pubs, c.counts())
		for _, s := range c.disorder() {
			x.t.Error(s)
		}
	}
	for _, n := range x.nodes {
		if have, all := n.set.Tenant("acme").HandedOff(), n.set.handedOff.Load(); have != 0 || all != 0 {
			x.t.Errorf("%s has %d bytes handed off for the tenant, %d for all, of nothing", n.name, have, all)
		}
	}
}

// While no broker reaches another, publishers that may are acknowledged; then their
// partitions have other owners, brokers die, and all heals: what was acknowledged comes
// to everybody, in order, and once if it is exact.
func TestWideSplit_HandOff(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			x := newSplit(t, seed, true)
			x.await("published", func() string { return x.published(wideMessages / 3) })
			for p := range partition.ID(wideParts) {
				x.give(p, x.nodes[(int(p)+int(seed)+1)%3], p%2 == 0)
			}
			x.await("published at new owners", func() string { return x.published(wideMessages * 2 / 3) })
			n := x.nodes[seed%3]
			n.die()
			x.heal()
			x.begin(n.name).set.handOffs.after = 20
			x.await("published after a crash", func() string { return x.published(wideMessages) })
			x.splitUp(false)
			x.delivered()
			x.retained(t, x.pubs)
		})
	}
}

// Without the setting a publisher waits for the partitions that are not reached, and
// goes on when they are.
func TestWideSplit_WithoutSetting(t *testing.T) {
	x := newSplit(t, 1, false)
	x.await("held", func() string {
		for _, n := range x.nodes {
			for _, s := range n.set.shards {
				if s.stats.Held.Load() > 100 {
					return ""
				}
			}
		}
		return "nothing is"
	})
	for _, c := range x.pubs {
		c.mu.Lock()
		if c.done > 0 {
			t.Errorf("%s has %d acknowledged", c.id, c.done)
		}
		c.mu.Unlock()
	}
	x.splitUp(false)
	x.await("published", func() string { return x.published(wideMessages) })
	x.delivered()
}

// When as much is handed off as may be, publishers wait again, and go on when there is
// room.
func TestWideSplit_HandOffFull(t *testing.T) {
	x := newSplit(t, 2, true)
	for _, n := range x.nodes {
		n.set.shards[0].ask(func() { n.set.handOffs.tenant = 8 << 10 })
	}
	x.await("full", func() string {
		for _, n := range x.nodes {
			for _, s := range n.set.shards {
				if s.stats.HandOffFull.Load() > 0 {
					return ""
				}
			}
		}
		return "not yet"
	})
	for _, n := range x.nodes {
		if have := n.set.Tenant("acme").HandedOff(); have > 8<<10 {
			t.Errorf("%s has %d bytes handed off", n.name, have)
		}
	}
	if x.published(wideMessages) == "" {
		t.Error("everything was acknowledged")
	}
	for p := range partition.ID(wideParts) { // what is not kept comes again from the publisher, behind what is
		x.give(p, x.nodes[(int(p)+1)%3], p%2 == 0)
	}
	x.splitUp(false)
	x.await("published", func() string { return x.published(wideMessages) })
	x.delivered()
}

// A will above QoS 0 for partitions that are not reached outlives its broker.
func TestWideSplit_Will(t *testing.T) {
	for qos := mqtt.AtLeastOnce; qos <= mqtt.ExactlyOnce; qos++ {
		t.Run(qos.String(), func(t *testing.T) {
			w := newWide(t, uint64(qos), 3)
			x := &split{wide: w, t: t}
			var subs []*wideClient
			for i := range 6 {
				c := w.client(fmt.Sprint("s", i), []string{"t/#"}, 0)
				subs = append(subs, c)
				x.lives.Go(c.live)
			}
			will := message("t/gone", "will", qos, false)
			c := w.client("dies", nil, 0)
			c.testament = &mqtt.Will{Message: will}
			x.lives.Go(c.live)
			t.Cleanup(func() {
				for _, c := range append(subs, c) {
					c.mu.Lock()
					c.quit = true
					c.mu.Unlock()
				}
				x.lives.Wait()
			})
			for _, s := range append(subs, c) {
				x.await("connected", func() string {
					if s.isReady() {
						return ""
					}
					return string(s.id)
				})
			}
			x.splitUp(true)
			c.mu.Lock()
			c.quit = true // its connection is lost
			c.mu.Unlock()
			x.await("kept", func() string {
				start, end := partition.Range(c.part, partition.KindOutbox)
				it := w.store.Scan(start, end)
				defer it.Close()
				if it.Next() {
					return ""
				}
				return "no outbox record"
			})
			w.mu.Lock()
			n := w.nodeLocked(w.parts[c.part].owner)
			w.mu.Unlock()
			n.die()
			w.heal()
			w.begin(n.name)
			x.splitUp(false)
			x.await("delivered", func() string {
				for _, s := range subs {
					if s.counts()["will"] == 0 {
						return string(s.id)
					}
				}
				return strings.Join(w.leftovers(), "; ")
			})
			for _, s := range subs {
				if n := s.counts()["will"]; qos == mqtt.ExactlyOnce && n != 1 {
					t.Errorf("%s got it %d times", s.id, n)
				}
			}
		})
	}
}

// What a publish has for a partition that is served and cannot commit is not handed off:
// its log cannot take it either. It is acknowledged when that is committed.
func TestHandOff_OwnLogStandsStill(t *testing.T) {
	w, n := lonely(t, 0)
	n.set.handOffs.after = 1
	sub := n.guest(nil, &link.Open{ClientID: mqtt.ClientID(clientIn(0, "s")), SessionExpiry: 3600})
	sub.wants(t, link.DownOpened)
	sub.send(subscribeTo("t"))
	sub.wants(t, link.DownSuback)
	sub.send(link.UpFrame{Kind: link.UpClose, Close: &link.Close{}})
	limits := unlimited
	limits.Settings.HandOff = true
	p := n.visitor(clientIn(0, "p"), limits)
	w.mu.Lock()
	w.parts[0].still = true
	w.mu.Unlock()
	p.send(link.UpFrame{Kind: link.UpPublish, PacketID: 1, Message: message("t", "x", 1, false)})
	n.eventually(t, "it is appended", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.parts[0].log) > 0
	})
	for range 100 { // turns in which it would be
		n.set.shardOf(0).ask(func() { n.set.shardOf(0).resend() })
		time.Sleep(time.Millisecond)
	}
	if items, _ := p.frames.take(); len(items) > 0 {
		t.Errorf("it is answered before it is committed: %+v", items)
	}
	w.mu.Lock()
	w.parts[0].still = false
	w.mu.Unlock()
	if r := p.wants(t, link.DownAck); r.Ack != mqtt.Puback || r.Reason.Failed() {
		t.Errorf("got %+v", r.DownFrame)
	}
}
