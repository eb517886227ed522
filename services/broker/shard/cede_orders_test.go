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
			if s.readParts(se, &wire.Reader{Data: slices.Clone(damaged)}) {
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

// A partition is left only when all that it has written is committed, also what nobody
// waits for.
func TestCede_LateBatch(t *testing.T) {
	w, n := lonely(t, 0, 1)
	c, moved := sealed(t, w, n, mqtt.ClientID(clientIn(0, "c")))
	s := n.set.shardOf(0)
	s.ask(func() { s.batch(s.ceded[0]).Put(partition.Key(nil, 0, partition.KindNumber), make([]byte, 8)) })
	commit := func(but int) (left int) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.commitLocked(0, len(w.parts[0].log)-but, nil, true)
		return len(w.parts[0].log)
	}
	n.eventually(t, "all is appended", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.parts[0].log) >= 2
	})
	if left := commit(1); left != 1 {
		t.Fatalf("%d records are not committed", left)
	}
	s.ask(func() {})
	s.ask(func() {
		if s.ceded[0] == nil {
			t.Error("it is left with a record that is not committed")
		}
	})
	commit(0)
	w.mu.Lock()
	w.parts[0].still = false
	w.mu.Unlock()
	c.wants(t, link.DownMoved)
	<-moved
}

// A session does not wait anew at each further owner, planned or not.
func TestCede_WaitsOnce(t *testing.T) {
	for name, expiry := range map[string]uint32{"clean": 0, "stored": 3600} {
		w, n := lonely(t, 0, 1)
		id := mqtt.ClientID(clientIn(0, "c"))
		c := n.guest(nil, &link.Open{ClientID: id, SessionExpiry: expiry})
		c.wants(t, link.DownOpened)
		token := c.moved(t, 0)
		s := n.set.shardOf(0)
		until := func() (until int64) {
			t.Helper()
			n.eventually(t, "it waits", func() bool {
				s.ask(func() {
					if se := s.session(n.set.Tenant("acme"), id); s.spaces[0] != nil && se != nil && se.awaited != nil {
						until = se.awaited.until
					}
				})
				return until != 0
			})
			return until
		}
		first := until()
		for _, planned := range []bool{true, false} {
			if expiry == 0 && !planned {
				continue // it is lost with its owner
			}
			n.eventually(t, "later", func() bool { return n.set.now() > first-resumeWait+20 })
			was := n.set.tenure(0)
			w.give(0, n, planned)
			n.eventually(t, "it is another tenure", func() bool { return n.set.tenure(0) == was+2 })
			if got := until(); got != first {
				t.Errorf("%s, planned %v: it waits %d ms longer", name, planned, got-first)
			}
		}
		c = n.guest(nil, &link.Open{ClientID: id, Resume: token})
		if r := c.wants(t, link.DownOpened); !r.SessionPresent {
			t.Errorf("%s: the session is a new one", name)
		}
	}
	for since, want := range map[int64]int64{1000: 11_000, 1500: 11_000, 0: 10_000, -8000: 3000, -20_000: 3000} {
		if got := resumeUntil(since, 1000); got != want {
			t.Errorf("let go of at %d, at 1000 it waits until %d, expected %d", since, got, want)
		}
	}
}
