// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/manormq/manor/services/broker/cluster"
	"github.com/manormq/manor/services/broker/partition"
)

// Hand implements Cluster: what is handed over comes late, or twice, and the answer may
// be lost.
func (n *wideNode) Hand(to string, b []byte, done func(bool)) error {
	w := n.w
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stats.hands++
	o := w.nodeLocked(to)
	if n.deadLocked() || o.deadLocked() {
		return cluster.ErrDown
	}
	pause, twice, lost := time.Duration(w.rand.IntN(2000))*time.Microsecond, w.rand.IntN(4) == 0, w.rand.IntN(8) == 0
	set, dead := o.set, o.dead
	go func() {
		time.Sleep(pause)
		answer := make(chan bool, 2)
		set.TakeHanded(b, func(ok bool) { answer <- ok })
		ok := false
		select {
		case ok = <-answer:
		case <-dead:
		}
		done(ok && !lost)
		if twice {
			time.Sleep(5 * pause)
			set.TakeHanded(b, func(bool) {})
		}
	}()
	return nil
}

// say writes the record of a tenant, which the brokers hear of one after another.
func (w *wide) say(tenant string, c Cell) {
	w.mu.Lock()
	w.cells[tenant] = c
	nodes := slices.Clone(w.nodes)
	for i := range nodes {
		k := w.rand.IntN(i + 1)
		nodes[i], nodes[k] = nodes[k], nodes[i]
	}
	w.mu.Unlock()
	for _, n := range nodes {
		w.mu.Lock()
		dead := n.deadLocked()
		n.cells[tenant] = c
		pause := time.Duration(w.rand.IntN(3000)) * time.Microsecond
		w.mu.Unlock()
		if !dead {
			time.Sleep(pause)
			n.set.SetCell(tenant, c)
		}
	}
}

// place has the clients' tenant live in other partitions, with all that it has. It reports
// false if ctx has ended before.
func (w *wide) place(ctx context.Context, list []partition.ID) bool {
	w.mu.Lock()
	c, ok := w.cells["acme"]
	if !ok {
		c = Cell{List: wideCell("acme", w.spread), Revision: 1}
	}
	w.stats.places++
	w.mu.Unlock()
	c = Cell{List: c.List, To: list, Stage: Leaving, Revision: c.Revision + 1}
	w.say("acme", c)
	var m Mover
	hand := uint64(0) // the revision for which is handed over
	for ctx.Err() == nil {
		w.mu.Lock()
		nodes := slices.Clone(w.nodes)
		if w.rand.IntN(20) == 0 { // another broker goes on with it
			m, hand = Mover{}, 0
		}
		w.mu.Unlock()
		said, members := map[string]Relocation{}, []string(nil)
		for _, n := range nodes {
			members = append(members, n.name)
			r := make(chan Relocation, 1)
			n.set.Relocate("acme", hand, func(x Relocation) { r <- x })
			select {
			case said[n.name] = <-r:
			case <-n.dead:
			}
		}
		may, advance := m.Next(c, members, said)
		if hand = 0; may {
			hand = c.Revision
		}
		if advance {
			if c.Stage == Arriving {
				w.say("acme", Cell{List: c.List, Revision: c.Revision + 1})
				return true
			}
			c = Cell{List: c.To, Stage: Arriving, Revision: c.Revision + 1}
			w.say("acme", c)
		}
		time.Sleep(time.Millisecond)
	}
	return false
}

// roam has the clients' tenant live elsewhere again and again, if it is to roam, until stop
// is called, which returns when it has arrived.
func (w *wide) roam() (stop func()) {
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for w.roams > 0 {
			select {
			case <-end:
				return
			case <-time.After(w.roams):
			}
			if !w.elsewhere() {
				return
			}
		}
	}()
	return func() {
		close(end)
		<-ended
	}
}

// elsewhere has the clients' tenant go to some partitions, and reports whether it has
// arrived.
func (w *wide) elsewhere() bool {
	w.mu.Lock()
	var list []partition.ID
	for p := range partition.ID(wideParts) {
		if w.rand.IntN(3) == 0 {
			list = append(list, p)
		}
	}
	if len(list) == 0 {
		list = []partition.ID{partition.ID(w.rand.IntN(wideParts))}
	}
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if !w.place(ctx, list) {
		w.t.Errorf("the tenant does not arrive in %v: %s", list, w.stuck())
		return false
	}
	return true
}

// stuck says how far each broker is with the clients' tenant.
func (w *wide) stuck() (out string) {
	w.mu.Lock()
	nodes := slices.Clone(w.nodes)
	w.mu.Unlock()
	for _, n := range nodes {
		r := make(chan Relocation, 1)
		n.set.Relocate("acme", 0, func(x Relocation) { r <- x })
		out += fmt.Sprintf("\n%s: %+v", n.name, <-r)
	}
	return out
}

// A tenant goes to other partitions again and again, with all that it has, while messages
// cross the cluster and everything happens to it that does in TestWide. WIDE_SEEDS says how
// many worlds there are, WIDE_FROM the first.
func TestWide_Placed(t *testing.T) {
	for seed := range wideSeeds() {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			w := newWide(t, seed, 3)
			w.roams = 30 * time.Millisecond
			playWide(t, w, seed)
		})
	}
}

// A tenant goes elsewhere again and again while its clients of every kind talk, and
// partitions move as planned: no connection is opened again, and no will is sent.
func TestWide_PlacedPlanned(t *testing.T) {
	for seed := range wideSeeds() {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			w := newWide(t, seed, 3)
			w.roams = 10 * time.Millisecond
			playPlanned(t, w, seed)
		})
	}
}
