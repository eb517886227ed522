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
)

// celled opens a channel at n for a client of a tenant of m partitions, and returns the
// first frame that comes.
func (n *wideNode) celled(t *testing.T, tenant, id string, m uint16, placement uint64) (*visitor, record) {
	t.Helper()
	v := n.visit(t, mqtt.ClientID(id), func(o *link.Open) {
		o.Guest, o.Tenant, o.Partitions, o.Placement = false, tenant, m, placement
	})
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if v.got, _ = v.frames.take(); len(v.got) > 0 {
			return v, v.got[0]
		}
		if time.Now().After(end) {
			t.Fatalf("%s is not answered", id)
		}
	}
}

// ownerOf is the node that owns a partition.
func (w *wide) ownerOf(p partition.ID) *wideNode {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.nodeLocked(w.parts[p].owner)
}

// idOf is a client id in a partition of a cell.
func idOf(cell []partition.ID, p partition.ID) string {
	for i := 0; ; i++ {
		if id := fmt.Sprint("client-", i); partition.Choose(cell, id) == p {
			return id
		}
	}
}

// A broker lets in who belongs to a partition that it serves, by the cell that it knows or
// draws, and tells others where they belong.
func TestCell_OwnerDecides(t *testing.T) {
	w := servedWide(t)
	cell := wideCell("t1", 2)
	for _, p := range cell {
		for _, n := range w.nodes {
			_, f := n.celled(t, "t1", idOf(cell, p), 2, 0)
			if n.set.Serves(p) != (f.Kind == link.DownOpened) || f.Kind != link.DownOpened && (f.Kind != link.DownMoved || f.Moved.Partition != uint16(p)) {
				t.Errorf("%s, which serves %d: %t, answers %+v", n.name, p, n.set.Serves(p), f.DownFrame)
			}
		}
	}
	for _, n := range w.nodes {
		if got := n.set.Tenant("t1").parts(); !slices.Equal(got, cell) {
			t.Errorf("%s has the cell %v, expected %v", n.name, got, cell)
		}
	}
}

// A gateway that knows a newer record than the broker waits until that has it, and so do
// the clients of a tenant that is about to be placed.
func TestCell_WaitsForTheRecord(t *testing.T) {
	w := servedWide(t)
	p := partition.ID(5)
	id := idOf([]partition.ID{p}, p)
	n := w.ownerOf(p)
	refused := func(f record) {
		t.Helper()
		if f.Kind != link.DownMoved {
			t.Errorf("it is answered %+v", f.DownFrame)
		}
	}
	_, f := n.celled(t, "t2", id, 0, 2)
	refused(f)
	n.set.SetCell("t2", Cell{List: []partition.ID{p}, Revision: 2})
	if _, f = n.celled(t, "t2", id, 0, 2); f.Kind != link.DownOpened {
		t.Errorf("with the record it is answered %+v", f.DownFrame)
	}
	for i, c := range []struct {
		by string
		ok bool
	}{{"a", true}, {"a", true}, {"b", false}} {
		if n.set.Hold("t2", c.by, time.Hour) != c.ok {
			t.Errorf("hold %d is for another at the same time", i)
		}
	}
	n.set.Release("t2", "b")
	_, f = n.celled(t, "t2", id, 0, 2)
	if refused(f); f.Moved.Partition != uint16(p) || f.Moved.Broker != n.name {
		t.Errorf("who is held is sent to %+v", f.Moved)
	}
	n.set.Release("t2", "a")
	if _, f = n.celled(t, "t2", id, 0, 2); f.Kind != link.DownOpened {
		t.Errorf("held no more it is answered %+v", f.DownFrame)
	}
	// An older record says nothing, one without a list that the plan says it.
	n.set.SetCell("t2", Cell{List: []partition.ID{1}, Revision: 1})
	if got := n.set.Tenant("t2").parts(); !slices.Equal(got, []partition.ID{p}) {
		t.Errorf("an older record is taken: %v", got)
	}
	n.set.SetCell("t2", Cell{Revision: 3})
	if c := n.set.Tenant("t2").cell.Load(); c.known || c.revision != 3 {
		t.Errorf("given back: %+v", c)
	}
}

// The next owner of a partition knows the cells of those that have something in it though
// it has heard of no record: sessions with an expiry and retained messages.
func TestCell_GoesWithThePartition(t *testing.T) {
	w := servedWide(t)
	cell := wideCell("t3", 2)
	p := cell[0]
	from := w.ownerOf(p)
	v, f := from.celled(t, "t3", idOf(cell, p), 2, 0)
	if f.Kind != link.DownOpened {
		t.Fatalf("%+v", f.DownFrame)
	}
	v.send(link.UpFrame{Kind: link.UpClose, Close: &link.Close{Cause: link.CloseNormal}})
	to := w.nodes[slices.IndexFunc(w.nodes, func(n *wideNode) bool { return n != from })]
	w.give(p, to, false)
	to.eventually(t, "served", func() bool { return to.set.Serves(p) })
	if got := to.set.Tenant("t3").cell.Load(); !slices.Equal(got.list, cell) || !got.known || got.revision != 1 {
		t.Errorf("the next owner has the cell %+v, expected %v", got, cell)
	}
	a := to.set.AskHere(&link.Query{Kind: link.QueryClient, Tenant: "t3", ClientID: mqtt.ClientID(idOf(cell, p))})
	if !a.Found {
		t.Error("its session is not there")
	}
}
