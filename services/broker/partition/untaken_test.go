// SPDX-License-Identifier: Apache-2.0

package partition

import "testing"

// handing is claimed, which has proposed that b be the owner.
func handing(t *testing.T) (*bench, *Proposal) {
	b := claimed(t)
	fx := b.step(Event{Kind: Plan, Wanted: []Broker{"b", "a", "c"}})
	for range 20 {
		if fx.Propose != nil {
			break
		}
		b.now += tendEvery
		fx = b.step(Event{Kind: Tick})
	}
	b.wantRole(Handing)
	if fx.Propose == nil || fx.Propose.Entry.Owner != "b" {
		t.Fatalf("expected a proposal that b be the owner: %+v", fx)
	}
	return b, fx.Propose
}

// A hand-over that nobody took note of, as the table's servers elect a leader, ends at
// once: the owner appends and commits as before, however long they take.
func TestReplica_HandOverUntaken(t *testing.T) {
	b, p := handing(t)
	fx := b.step(Event{Kind: Proposed, At: p.At, Outcome: Untaken})
	if !fx.RoleChanged {
		t.Errorf("the end of the hand-over is not told: %+v", fx)
	}
	b.wantRole(Serving)
	b.step(Event{Kind: TableRead, Failed: true})
	if fx := b.step(Event{Kind: Append}); len(fx.Write) != 1 {
		t.Fatalf("an append does %+v", fx)
	}
	b.written()
	b.answer("b", Last{5, 11}, 5)
	if fx := b.answer("c", Last{5, 11}, 5); fx.Committed != 11 {
		t.Fatalf("expected 11 committed: %+v", fx)
	}
}

// What may have been carried out, or may yet be, is not forgotten because the same,
// proposed once more, was not taken.
func TestReplica_HandOverUnknownThenUntaken(t *testing.T) {
	b, p := handing(t)
	b.step(Event{Kind: Proposed, At: p.At, Outcome: Unknown})
	b.read(b.Table().Entry, p.At)
	var again *Proposal
	for range 5 {
		b.now += tendEvery
		if fx := b.step(Event{Kind: Tick}); fx.Propose != nil {
			again = fx.Propose
			break
		}
	}
	if again == nil || again.At != p.At || again.Entry.Owner != "b" {
		t.Fatalf("expected the same proposal, got %+v", again)
	}
	b.step(Event{Kind: Proposed, At: p.At, Outcome: Untaken})
	b.wantRole(Handing)
	b.now += handOver
	b.step(Event{Kind: Tick})
	b.wantRole(Handing)
}
