// SPDX-License-Identifier: Apache-2.0

package partition

import (
	"slices"
	"testing"
)

// What an operator abandons goes on with the copy of one that was catching up: an old
// one of its own is whole from then on, and followed by others.
func TestAbandon_StaleFollower(t *testing.T) {
	b := newBench(t, &Stored{State: State{Epoch: 4, Copy: Whole}, Log: NewLog(Last{3, 10})})
	lost := Entry{Epoch: 6, Owner: "x", InSync: []Broker{"x"}, Others: []Broker{"a", "b"}}
	b.read(lost, 20)
	b.written()
	b.wantRole(Following)
	e := Abandon(&lost, "a", []Broker{"b", "a"})
	if e.Epoch != 7 || e.Owner != "a" || !slices.Equal(e.InSync, []Broker{"a"}) || !slices.Equal(e.Others, []Broker{"b"}) || !e.Abandoned {
		t.Fatalf("%+v", e)
	}
	if got, err := ParseEntry(e.Append(nil)); err != nil || !got.same(&e) || got.Epoch != 7 {
		t.Fatalf("%+v, %v", got, err)
	}
	b.step(Event{Kind: TableSeen, Table: Table{Entry: e, Revision: 21}})
	fx := b.written()
	if fx.Propose == nil || fx.Propose.Entry.Abandoned || !fx.Propose.Entry.Holds("b") {
		t.Fatalf("expected a proposal that takes the mark away: %+v", fx)
	}
	won := fx.Propose.Entry
	b.step(Event{Kind: Proposed, At: 21, Outcome: Won, Table: Table{Entry: won, Revision: 22}})
	b.written()
	b.wantRole(Serving)
	if b.Last() != (Last{3, 10}) {
		t.Errorf("it goes on behind %v", b.Last())
	}
}

// The owner that comes back after it was given up throws away what it has.
func TestAbandon_OldOwner(t *testing.T) {
	b := newBench(t, &Stored{State: State{Epoch: 4, Copy: Whole}, Log: NewLog(Last{4, 10})})
	e := Abandon(&Entry{Epoch: 4, Owner: "a", InSync: []Broker{"a"}}, "b", nil)
	b.read(e, 21)
	b.written()
	b.wantRole(Following)
	if b.Copy() != Empty {
		t.Errorf("its copy is %d", b.Copy())
	}
}
