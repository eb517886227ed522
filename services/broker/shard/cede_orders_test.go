// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"slices"
	"testing"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/wire"
	"github.com/manormq/manor/services/broker/cluster"
	"github.com/manormq/manor/services/broker/partition"
)

// drops is how many messages were dropped for a reason, of all shards.
func (n *wideNode) drops(why dropReason) (sum uint64) {
	for _, s := range n.set.shards {
		sum += s.stats.drops[why].Load()
	}
	return sum
}

// A partition that is ceded before it is taken up is not taken up when its first record
// is committed, and is when it stays after all.
func TestCede_BeforeTakenUp(t *testing.T) {
	w, n := lonely(t, 0)
	const p = partition.ID(2)
	s := n.set.shardOf(p)
	w.mu.Lock()
	x := &w.parts[p]
	x.owner, x.still = n.name, true
	x.epoch++
	epoch := x.epoch
	w.mu.Unlock()
	n.set.Serve(p, epoch)
	s.ask(func() {})
	w.cede(n, p)
	w.mu.Lock()
	if len(x.log) != 1 {
		t.Errorf("%d records are appended", len(x.log))
	}
	w.commitLocked(p, len(x.log), nil, true)
	x.still = false
	w.mu.Unlock()
	s.ask(func() {})
	if n.set.Serves(p) {
		t.Error("it is served while it is handed over")
	}
	n.set.Serve(p, epoch)
	w.served(p)
}

// What is lost at QoS 0 because it is for a partition that is not served is counted.
func TestCede_Unserved(t *testing.T) {
	_, n := lonely(t, 0)
	in := n.set.Inlet("another")
	in.Enqueue(&cluster.Enqueue{Tenant: "acme", Parts: []partition.ID{5}, Message: message("t", "x", 0, false)}, nil)
	in.Flush()
	if got := n.drops(dropUnserved); got != 1 {
		t.Errorf("%d are counted", got)
	}
}

// Messages at QoS 0 that wait with a session for its connection are counted when the
// partition moves on before that has come.
func TestCede_LateMovesOn(t *testing.T) {
	w, n := lonely(t, 0, 1)
	c := n.guest(nil, &link.Open{ClientID: mqtt.ClientID(clientIn(0, "c"))})
	c.wants(t, link.DownOpened)
	c.send(subscribeTo("t"))
	c.wants(t, link.DownSuback)
	c.moved(t, 0)
	p := n.visitor(clientIn(1, "p"), unlimited)
	p.send(link.UpFrame{Kind: link.UpPublish, Message: message("t", "late", 0, false)})
	p.send(link.UpFrame{Kind: link.UpPublish, PacketID: 1, Message: message("t", "behind it", 1, false)})
	p.wants(t, link.DownAck)
	w.give(0, n, true)
	if got := n.drops(dropSlow); got != 1 {
		t.Errorf("%d are counted", got)
	}
}

// A session that is purged while its partition is sealed is not at the next owner.
func TestCede_Purged(t *testing.T) {
	w, n := lonely(t, 0, 1)
	id := mqtt.ClientID(clientIn(0, "c"))
	_, moved := sealed(t, w, n, id)
	s := n.set.shardOf(0)
	if a := n.set.AskHere(&link.Query{Kind: link.QueryKick, Tenant: "acme", ClientID: id, Purge: true}); !a.Found {
		t.Error("it is not found")
	}
	w.mu.Lock()
	w.parts[0].still = false
	w.mu.Unlock()
	<-moved
	s.ask(func() {
		if s.session(n.set.Tenant("acme"), id) != nil {
			t.Error("it is there again")
		}
	})
}

// A record of a connection that is damaged is refused.
func TestCarry_Damaged(t *testing.T) {
	_, n := lonely(t, 0)
	s := n.set.shardOf(0)
	s.ask(func() {
		se := &sess{tenant: n.set.Tenant("acme"), space: s.spaces[0]}
		for _, damaged := range [][]byte{{}, {0}, {0, 1, 7, 0, 0}, {0, 3, 0, 1, 2, 0, 0}} {
			if s.restoreWhole(se, &wire.Reader{Data: slices.Clone(damaged)}) {
				t.Errorf("%v is taken", damaged)
			}
		}
	})
}

// No guest takes the place of a session that is here still, in a partition that is
// sealed: it would not be told that it moves.
func TestCede_GuestOfSealed(t *testing.T) {
	w, n := lonely(t, 0, 2)
	if n.set.shardOf(0) != n.set.shardOf(2) {
		t.Fatal("the partitions are of two shards")
	}
	id := mqtt.ClientID(clientIn(0, "c"))
	c, moved := sealed(t, w, n, id)
	n.visit(t, id, allowed).want(link.DownMoved)
	w.mu.Lock()
	w.parts[0].still = false
	w.mu.Unlock()
	c.wants(t, link.DownMoved)
	<-moved
}

// sealed has a client connect and its partition 0 be sealed, whose commits stand still.
// moved is closed when the move is over.
func sealed(t *testing.T, w *wide, n *wideNode, id mqtt.ClientID) (c *wideConn, moved chan struct{}) {
	t.Helper()
	c = n.guest(nil, &link.Open{ClientID: id})
	c.wants(t, link.DownOpened)
	w.mu.Lock()
	w.parts[0].still = true
	w.mu.Unlock()
	moved = make(chan struct{})
	go func() {
		w.give(0, n, true)
		close(moved)
	}()
	c.wants(t, link.DownPause)
	c.send(link.UpFrame{Kind: link.UpPaused})
	s := n.set.shardOf(0)
	n.eventually(t, "sealed", func() (yes bool) {
		s.ask(func() { yes = s.ceded[0] != nil })
		return yes
	})
	return c, moved
}
