// SPDX-License-Identifier: Apache-2.0

package partition

import "testing"

// A follower joins the replicas in sync when it has all that the owner had when it took the partition
// up, not only what is committed under it: an owner before it may have acknowledged the rest.
func TestReplica_JoinsWithAllThatWasClaimed(t *testing.T) {
	b := newBench(t, stored(joined, Last{4, 10}))
	fx := b.read(joined, 20)
	if fx.Propose == nil {
		t.Fatalf("an owner that was started anew keeps its epoch: %+v", fx)
	}
	b.step(Event{Kind: Proposed, At: 20, Outcome: Won, Table: Table{Entry: fx.Propose.Entry, Revision: 21}})
	b.written()
	b.says("b", 5, Last{4, 8})
	b.wantRole(Serving)
	b.says("c", 5, Last{4, 8})
	b.now += repropose
	if fx := b.step(Event{Kind: Tick}); fx.Propose != nil {
		t.Fatalf("8 of 10 are what is committed: %+v", fx.Propose)
	}
	if b.owner.committed > 8 {
		t.Fatalf("committed %d while b has 8", b.owner.committed)
	}
	if fx = b.says("c", 5, Last{4, 10}); fx.Propose == nil {
		b.now += repropose
		fx = b.step(Event{Kind: Tick})
	}
	if fx.Propose == nil || !fx.Propose.Entry.IsInSync("c") {
		t.Fatalf("has all, and is not taken in: %+v", fx)
	}
}
