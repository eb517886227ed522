// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"slices"
	"testing"

	"github.com/manormq/manor/services/broker/partition"
)

// rowsOf are partitions that are where they should be while all is well.
func rowsOf(w *Watch, n int) (rows []Row) {
	for p := range partition.ID(n) {
		wanted := Wanted(p, 2, "", w.Brokers(0))
		e := partition.Entry{Epoch: 3, Owner: wanted[0], InSync: wanted}
		rows = append(rows, Row{ID: p, Table: partition.Table{Entry: e, Revision: 5}, Serving: true})
	}
	return rows
}

// One that stops gives away what it owns, all at once since nothing is copied, and
// follows where it did; others give it nothing, and take nothing from it.
func TestController_Stops(t *testing.T) {
	w := watchOf(4)
	const self = partition.Broker("broker-0")
	rows := rowsOf(w, 64)
	w.Beat(self, Beat{Count: 2, Stopping: true})
	owned := 0
	for _, b := range brokers(4, 0) {
		var mine []Row
		for _, r := range rows {
			if r.Table.Owner == b.Name {
				mine = append(mine, r)
			}
		}
		decided := control(b.Name, 1).Decide(w, mine)
		if len(decided) != len(mine) {
			t.Fatalf("%s decides %d of %d", b.Name, len(decided), len(mine))
		}
		for i, d := range decided {
			e := &mine[i].Table.Entry
			held := append([]partition.Broker(nil), d.Wanted...)
			slices.Sort(held)
			was := append([]partition.Broker(nil), e.InSync...)
			slices.Sort(was)
			if !slices.Equal(held, was) {
				t.Errorf("partition %d of %v is to be held by %v", d.ID, e.InSync, d.Wanted)
			}
			switch {
			case b.Name == self:
				owned++
				if d.Wanted[0] == self || !d.Draining {
					t.Errorf("partition %d: %+v", d.ID, d)
				}
			case d.Wanted[0] != e.Owner || d.Draining:
				t.Errorf("partition %d is taken from %s: %+v", d.ID, e.Owner, d)
			}
		}
	}
	if owned < 8 {
		t.Errorf("%s owned %d only", self, owned)
	}
	// Of a new partition it gets nothing.
	for p := range partition.ID(64) {
		if got := control(self, 1).Wanted(w, &Row{ID: p}); slices.Contains(got, self) || len(got) != 2 {
			t.Errorf("new partition %d is to be held by %v", p, got)
		}
	}
	// When all stop, each keeps what it has.
	for i, b := range brokers(4, 0) {
		w.Beat(b.Name, Beat{Count: uint64(10 + i), Stopping: true})
	}
	if got := control(self, 1).Decide(w, rows); len(got) != 0 {
		t.Errorf("all stop, and %v is decided", got)
	}
}

// With one replica it must be copied to one that stays.
func TestController_StopsAlone(t *testing.T) {
	w := watchOf(3)
	const self = partition.Broker("broker-0")
	w.Beat(self, Beat{Count: 2, Stopping: true})
	c := control(self, 8)
	c.Replicas = func(partition.ID) int { return 1 }
	row := Row{ID: 5, Table: partition.Table{Entry: partition.Entry{Epoch: 3, Owner: self, InSync: []partition.Broker{self}}, Revision: 5}, Serving: true}
	got := c.Decide(w, []Row{row})
	if len(got) != 1 || len(got[0].Wanted) != 1 || got[0].Wanted[0] == self {
		t.Errorf("%+v", got)
	}
}

// Heartbeats of one that was given up count for nothing, until its tombstone is gone.
func TestWatch_Tombstone(t *testing.T) {
	w := watchOf(2)
	const b = partition.Broker("broker-1")
	w.Tombstone(b, true)
	w.Beat(b, Beat{Count: 2})
	w.At(9001)
	w.Beat(b, Beat{Count: 3})
	if got := w.Brokers(0); len(got) != 1 || w.BeatAge(b) < Gone {
		t.Errorf("it is still there: %v, age %d", got, w.BeatAge(b))
	}
	w.Tombstone(b, false)
	w.Beat(b, Beat{Count: 4})
	if got := w.Brokers(0); len(got) != 2 || w.BeatAge(b) != 0 {
		t.Errorf("it is not there again: %v, age %d", got, w.BeatAge(b))
	}
}

func TestBeat_Stopping(t *testing.T) {
	b := Beat{Count: 7, Stopping: true, Zone: "a"}
	got, err := ParseBeat(b.Append(nil))
	if err != nil || !got.Stopping || got.Draining || got.Busy {
		t.Errorf("%+v, %v", got, err)
	}
}
