// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/retain"
	"github.com/manormq/manor/services/broker/session"
)

// handedPart is the partition that handedOver hands sessions to.
const handedPart = partition.ID(5)

// handedOver has n sessions, each subscribed to a filter of its own, handed to the owner of
// handedPart, which is returned, and committed there. Their tenant is Leaving still.
func (w *wide) handedOver(n int) (owner *wideNode) {
	w.t.Helper()
	owner = w.ownerOf(handedPart)
	w.say("acme", Cell{List: []partition.ID{1}, To: []partition.ID{handedPart}, Stage: Leaving, Revision: 2})
	var pieces []portion
	for i := range n {
		se := &sess{limits: &unlimited, origin: &link.Labels{}}
		se.Session = *session.Restore(uint64(i+1), mqtt.ClientID(handedClient(i)), session.Stored{Durable: true, Expiry: 3600})
		se.RestoreSubscription(mqtt.Subscription{Filter: fmt.Sprint("f/", i), QoS: 1})
		data, err := owner.set.shards[0].wrapSession(se)
		if err != nil {
			w.t.Fatal(err)
		}
		pieces = appendPieces(pieces, se.recordName(), data, pieceBytes)
	}
	answer := make(chan bool, 1)
	owner.set.TakeHanded(appendHand(nil, "acme", 2, handedPart, pieces), func(ok bool) { answer <- ok })
	select {
	case ok := <-answer:
		if !ok {
			w.t.Fatal("what is handed is not taken")
		}
	case <-time.After(10 * time.Second):
		w.t.Fatal("nobody says whether what is handed was taken")
	}
	return owner
}

func handedClient(i int) string { return fmt.Sprint("client-", i) }

// relocation is how far a broker is with the tenant.
func (n *wideNode) relocation() Relocation {
	r := make(chan Relocation, 1)
	n.set.Relocate("acme", 0, func(x Relocation) { r <- x })
	return <-r
}

// still has nothing of a partition be committed by itself, or again.
func (w *wide) still(p partition.ID, on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.parts[p].still = on
}

// appended is how much of a partition is not committed.
func (w *wide) appended(p partition.ID) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.parts[p].log)
}

// commit commits what was appended to a partition.
func (w *wide) commit(p partition.ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.commitLocked(p, len(w.parts[p].log), nil, true)
}

// takenUp waits until the owner of handedPart has taken up all of n sessions.
func (n *wideNode) takenUp(t *testing.T, sessions int) {
	t.Helper()
	n.eventually(t, "taken up", func() bool { return slices.Contains(n.relocation().Stopped, handedPart) })
	for i := range sessions {
		if a := n.set.AskHere(&link.Query{Kind: link.QueryClient, Tenant: "acme", ClientID: mqtt.ClientID(handedClient(i))}); !a.Found {
			t.Errorf("%s has not got %s", n.name, handedClient(i))
		}
	}
}

// A partition that moves while it takes up what it was handed has not arrived before its next
// owner has taken up the rest: nobody of the tenant is let in before.
func TestHand_MovesWhileItIsTakenUp(t *testing.T) {
	w := servedWide(t)
	a := w.handedOver(3)
	b := w.nodes[slices.IndexFunc(w.nodes, func(n *wideNode) bool { return n != a })]
	for _, n := range []*wideNode{a, b} {
		n.set.hands.most = 1 // one session at a time
	}
	w.still(handedPart, true)
	arriving := Cell{List: []partition.ID{handedPart}, Stage: Arriving, Revision: 3}
	a.set.SetCell("acme", arriving)
	a.eventually(t, "the first session taken up", func() bool { return w.appended(handedPart) > 0 })
	w.commit(handedPart)
	a.eventually(t, "the second session taken up", func() bool { return w.appended(handedPart) > 0 })
	// All that a has appended is committed, and it does not hear of it.
	w.mu.Lock()
	w.commitLocked(handedPart, len(w.parts[handedPart].log), nil, false)
	w.mu.Unlock()
	w.begins(handedPart, b, false)
	b.eventually(t, "the move begun", func() bool { return w.appended(handedPart) > 0 })
	w.commit(handedPart)
	b.eventually(t, "served", func() bool { return b.set.Serves(handedPart) })
	if r := b.relocation(); r.Revision != arriving.Revision || slices.Contains(r.Stopped, handedPart) || !r.Behind {
		t.Errorf("a session waits to be taken up, and the next owner does not know or says that the tenant has arrived: %+v", r)
	}
	w.say("acme", arriving)
	w.still(handedPart, false)
	b.takenUp(t, 3)
}

// A partition that moves when all that it was handed is taken up, and not all brokers know of
// its routes yet, has not arrived before they do.
func TestHand_MovesBeforeItsRoutesAreKnown(t *testing.T) {
	w := servedWide(t)
	a := w.handedOver(2)
	at := slices.IndexFunc(w.nodes, func(n *wideNode) bool { return n != a })
	b, far := w.nodes[at], w.nodes[slices.IndexFunc(w.nodes, func(n *wideNode) bool { return n != a && n != w.nodes[at] })]
	hear := make(chan struct{})
	far.told.put(func() { <-hear })
	w.say("acme", Cell{List: []partition.ID{handedPart}, Stage: Arriving, Revision: 3})
	has := func(n *wideNode) bool {
		return n.set.AskHere(&link.Query{Kind: link.QueryClient, Tenant: "acme", ClientID: mqtt.ClientID(handedClient(1))}).Found
	}
	a.eventually(t, "taken up", func() bool { return has(a) && w.appended(handedPart) == 0 })
	w.give(handedPart, b, true)
	b.eventually(t, "restored", func() bool { return has(b) && w.appended(handedPart) == 0 })
	for _, n := range w.nodes {
		if r := n.relocation(); slices.Contains(r.Stopped, handedPart) {
			t.Errorf("%s does not know the routes, and the partition says at %s that it has arrived: %+v", far.name, n.name, r)
		}
	}
	close(hear)
	b.takenUp(t, 2)
}

// leaving has the owner of handedPart have sessions of a tenant that goes to partition 1, which
// has stopped everywhere.
func (w *wide) leaving(sessions int) (n *wideNode) {
	w.t.Helper()
	n = w.ownerOf(handedPart)
	w.say("acme", Cell{List: []partition.ID{handedPart}, Revision: 4})
	for i := range sessions {
		v, f := n.celled(w.t, "acme", handedClient(i), 0, 0)
		if f.Kind != link.DownOpened {
			w.t.Fatalf("%+v", f.DownFrame)
		}
		v.send(link.UpFrame{Kind: link.UpClose, Close: &link.Close{Cause: link.CloseNormal}})
	}
	w.say("acme", Cell{List: []partition.ID{handedPart}, To: []partition.ID{1}, Stage: Leaving, Revision: 5})
	n.eventually(w.t, "stopped", func() bool {
		r := n.relocation()
		return r.Quiet && slices.Contains(r.Stopped, handedPart) && r.Sessions == sessions
	})
	to := w.ownerOf(1)
	to.eventually(w.t, "stopped", func() bool { return slices.Contains(to.relocation().Stopped, 1) })
	return n
}

// handed asks a broker to hand over by a record, and says how many sessions it has handed.
func (n *wideNode) handed(revision uint64) (total uint64) {
	r := make(chan Relocation, 1)
	n.set.Relocate("acme", revision, func(x Relocation) { r <- x })
	<-r
	n.set.Stats(func(s *Stats) { total += s.Handed.Load() })
	return total
}

// A question that comes late, when its tenant goes elsewhere by a later record, hands nothing
// over: not all that was under way by that may have arrived.
func TestHand_LateQuestion(t *testing.T) {
	w := servedWide(t)
	n := w.leaving(1)
	for range 10 {
		if n.handed(2) > 0 || w.hands() > 0 {
			t.Fatal("it hands over for a record of before")
		}
	}
	n.eventually(t, "handed over", func() bool { return n.handed(5) == 1 })
}

// hands is how often something was handed from broker to broker.
func (w *wide) hands() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stats.hands
}

// A partition that is sealed while it hands sessions over hands no more: what the others have in
// memory alone is on its way to its next owner.
func TestHand_SealedMeanwhile(t *testing.T) {
	w := servedWide(t)
	n := w.leaving(3)
	n.set.hands.most = 1 // one session at a time
	w.still(handedPart, true)
	n.eventually(t, "one session handed", func() bool { return n.handed(5) == 1 && w.appended(handedPart) > 0 })
	before := w.hands()
	left := make(chan struct{})
	n.set.Cede(handedPart, func() { close(left) })
	s := n.set.shardOf(handedPart)
	n.eventually(t, "sealed", func() (sealed bool) {
		s.ask(func() { sealed = s.ceded[handedPart] != nil })
		return sealed
	})
	w.still(handedPart, false)
	select {
	case <-left:
	case <-time.After(10 * time.Second):
		t.Fatal("the partition is not left")
	}
	if got := w.hands(); got != before {
		t.Errorf("it has handed over %d times since", got-before)
	}
}

// What is handed to a partition that is lost before its commit is refused once, and not taken
// after all when the other brokers know of its retained message.
func TestHand_LostBeforeTheCommit(t *testing.T) {
	w := servedWide(t)
	a := w.ownerOf(handedPart)
	b := w.nodes[slices.IndexFunc(w.nodes, func(n *wideNode) bool { return n != a })]
	w.say("acme", Cell{List: []partition.ID{1}, To: []partition.ID{handedPart}, Stage: Leaving, Revision: 2})
	hear := make(chan struct{})
	b.told.put(func() { <-hear })
	w.still(handedPart, true)
	m := message("kept", "x", 1, true)
	pieces := []portion{
		{kind: pieceRetained, name: "kept", of: 1, data: wrapRetained(&retain.Retained{Message: m, StoredAt: 1})},
		{kind: pieceSession, name: "c", of: 1, data: []byte("x")},
	}
	answers := make(chan bool, 4)
	a.set.TakeHanded(appendHand(nil, "acme", 2, handedPart, pieces), func(ok bool) { answers <- ok })
	a.eventually(t, "taken", func() bool { return w.appended(handedPart) > 0 })
	w.begins(handedPart, b, false)
	if ok := <-answers; ok {
		t.Fatal("what was lost is said to be taken")
	}
	close(hear)
	a.eventually(t, "all is told", func() bool {
		b.told.mu.Lock()
		defer b.told.mu.Unlock()
		return len(b.told.items) == 0 && !b.told.busy
	})
	a.set.shardOf(handedPart).ask(func() {}) // behind what follows of that
	w.still(handedPart, false)
	b.eventually(t, "served", func() bool { return b.set.Serves(handedPart) })
	select {
	case ok := <-answers:
		t.Errorf("it is answered again, %t", ok)
	default:
	}
}
