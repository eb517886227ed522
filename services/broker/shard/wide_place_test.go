// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"context"
	"fmt"
	"os"
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
// false if ctx has ended before the tenant has arrived there, or is where it was.
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
	w.reach(atLeaving)
	var m Mover
	hand := uint64(0) // the revision for which is handed over
	began := time.Now()
	for ctx.Err() == nil {
		w.mu.Lock()
		if w.rand.IntN(20) == 0 { // another broker goes on with it
			m, hand = Mover{}, 0
		}
		w.mu.Unlock()
		l := w.look(hand)
		l.Waited = time.Since(began)
		o := m.Next(c, l)
		if hand = 0; o.Hand {
			hand = c.Revision
			w.reach(atHanding)
		}
		if o.Decide != Undecided {
			w.decide(c, o.Decide)
		}
		switch {
		case o.Return:
			w.mu.Lock()
			w.stats.returns++
			w.mu.Unlock()
			w.say("acme", Cell{List: c.List, Revision: c.Revision + 1})
			return true
		case o.Advance && c.Stage == Arriving:
			w.say("acme", Cell{List: c.List, Revision: c.Revision + 1})
			return true
		case o.Advance:
			c = Cell{List: c.To, Stage: Arriving, Revision: c.Revision + 1}
			w.say("acme", c)
			w.reach(atArriving)
			began = time.Now()
		}
		time.Sleep(time.Millisecond)
	}
	return false
}

// look asks all brokers how far they are with the clients' tenant.
func (w *wide) look(hand uint64) *Look {
	w.mu.Lock()
	nodes := slices.Clone(w.nodes)
	w.mu.Unlock()
	l := &Look{Said: map[string]Relocation{}, MayTurn: true, Owner: func(p partition.ID) string {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.parts[p].owner
	}}
	for _, n := range nodes {
		l.Members = append(l.Members, n.name)
		r := make(chan Relocation, 1)
		n.set.Relocate("acme", hand, func(x Relocation) { r <- x })
		select {
		case l.Said[n.name] = <-r:
			l.Alive = append(l.Alive, n.name)
		case <-n.dead:
		}
	}
	return l
}

// decide has the owner of the first partition decide; sometimes another broker, which thinks that
// it is that, wants the other course at the same time.
func (w *wide) decide(c Cell, course Course) {
	w.mu.Lock()
	nodes := slices.Clone(w.nodes)
	other := course == Onward && w.rand.IntN(4) == 0
	w.mu.Unlock()
	for _, n := range nodes {
		if other {
			n.set.Decide("acme", c.Revision, Back)
		}
		n.set.Decide("acme", c.Revision, course)
	}
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
	most := 20 * time.Second
	if w.deadly {
		most = 10 * time.Second // as long as gateways wait
		w.dooms()
		defer w.revive()
	}
	ctx, cancel := context.WithTimeout(context.Background(), most)
	defer cancel()
	if !w.place(ctx, list) {
		w.t.Errorf("the tenant does neither arrive in %v nor stay: %s", list, w.stuck())
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
		select {
		case x := <-r:
			out += fmt.Sprintf("\n%s: %+v", n.name, x)
		case <-n.dead:
			out += fmt.Sprintf("\n%s is dead", n.name)
		}
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

// A broker dies in each move, at one of its stages, and is back only when the move has ended:
// that it does within the time that gateways wait, and it takes nothing with it. One world is
// enough where WIDE_SEEDS does not say more.
func TestWide_PlacedWhileABrokerIsAway(t *testing.T) {
	for seed := range wideSeeds() {
		if os.Getenv("WIDE_SEEDS") == "" && seed > 1 {
			break
		}
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			w := newWide(t, seed, 3)
			w.roams, w.deadly = 20*time.Millisecond, true
			playWide(t, w, seed)
			if w.stats.deaths == 0 {
				t.Error("no broker has died in a move")
			}
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
