// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"maps"
	"reflect"
	"testing"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/partition"
)

// Sessions are handed over when all brokers have been quiet at two looks with the same
// numbers, and a tenant goes on when nothing is left; a broker that does not answer, lacks
// the record, or serves what it may have lost begins that anew.
func TestMover(t *testing.T) {
	c := Cell{List: []partition.ID{0, 1}, To: []partition.ID{1, 2}, Stage: Leaving, Revision: 5}
	members := []string{"a", "b"}
	good := map[string]Relocation{
		"a": {Revision: 5, Stage: Leaving, Quiet: true, Flown: 7, Stopped: []partition.ID{0, 2}},
		"b": {Revision: 5, Stage: Leaving, Quiet: true, Stopped: []partition.ID{1}, Empty: []partition.ID{1}},
	}
	but := func(name string, edit func(r *Relocation)) map[string]Relocation {
		out := maps.Clone(good)
		r := out[name]
		edit(&r)
		out[name] = r
		return out
	}
	emptied := but("a", func(r *Relocation) { r.Empty = []partition.ID{0} })
	for name, bad := range map[string]map[string]Relocation{
		"b does not answer":       {"a": good["a"]},
		"a has an older record":   but("a", func(r *Relocation) { r.Revision = 4 }),
		"b is not quiet":          but("b", func(r *Relocation) { r.Quiet = false }),
		"b serves what is behind": but("b", func(r *Relocation) { r.Behind = true }),
		"2 is not served":         but("a", func(r *Relocation) { r.Stopped = []partition.ID{0} }),
		"1 is not served":         but("b", func(r *Relocation) { r.Stopped = nil }),
	} {
		var m Mover
		for i, said := range []map[string]Relocation{good, bad, bad, good} {
			if hand, advance := m.Next(c, members, said); hand || advance {
				t.Errorf("%s: look %d hands over", name, i)
			}
		}
		if hand, _ := m.Next(c, members, good); !hand {
			t.Errorf("%s: the second good look in a row hands nothing over", name)
		}
	}
	var m Mover
	m.Next(c, members, good)
	if hand, _ := m.Next(c, members, but("a", func(r *Relocation) { r.Flown = 8 })); hand {
		t.Error("it hands over though something was sent between two looks")
	}
	if hand, advance := m.Next(c, members, but("a", func(r *Relocation) { r.Flown = 8 })); !hand || advance {
		t.Errorf("hands over %t, goes on %t", hand, advance)
	}
	if _, advance := m.Next(c, members, emptied); !advance {
		t.Error("it does not go on though nothing is left")
	}
	next := Cell{List: c.To, Stage: Arriving, Revision: 6}
	arrived := map[string]Relocation{
		"a": {Revision: 6, Stage: Arriving, Quiet: true, Stopped: []partition.ID{2}},
		"b": {Revision: 6, Stage: Arriving, Quiet: true, Stopped: []partition.ID{1}},
	}
	if _, advance := m.Next(next, members, map[string]Relocation{"a": arrived["a"], "b": {Revision: 6, Quiet: true}}); advance {
		t.Error("it arrives before 1 has taken up what it was handed")
	}
	lacks := maps.Clone(arrived)
	r := lacks["b"]
	r.Routes = 1
	lacks["b"] = r
	for i := range unequalMost {
		if _, advance := m.Next(next, members, lacks); advance {
			t.Fatalf("it arrives at look %d though the brokers know different routes", i)
		}
	}
	other := m
	if _, advance := m.Next(next, members, arrived); !advance || m.Unequal() {
		t.Error("it does not arrive")
	}
	if _, advance := other.Next(next, members, lacks); !advance || !other.Unequal() {
		t.Error("it waits for ever for brokers to know the same")
	}
	m = Mover{}
	if _, advance := m.Next(next, members, arrived); !advance || m.Unequal() {
		t.Error("it does not arrive though all know the same")
	}
}

// A stored cell is read as it was written, also by who knows no moves if there is none.
func TestParseCell(t *testing.T) {
	for _, c := range []Cell{
		{List: []partition.ID{3, 9}, Revision: 1},
		{List: []partition.ID{3, 9}, To: []partition.ID{9}, Stage: Leaving, Revision: 7},
		{List: []partition.ID{9}, Stage: Arriving, Revision: 8},
	} {
		in := cell{list: c.List, to: c.To, stage: c.Stage, revision: c.Revision}
		if got, err := parseCell(in.append(nil)); err != nil || !reflect.DeepEqual(got, c) {
			t.Errorf("%+v, %v, expected %+v", got, err, c)
		}
	}
	for _, bad := range [][]byte{
		nil, make([]byte, 8), make([]byte, 11),
		{0xC0, 0, 0, 0, 0, 0, 0, 1, 0, 1},
		{0x40, 0, 0, 0, 0, 0, 0, 1, 0, 1},
		{0x40, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 5},
		{0x40, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 5},
	} {
		if got, err := parseCell(bad); err == nil {
			t.Errorf("%x is %+v", bad, got)
		}
	}
}

// While a tenant is about to be placed, or moves, its clients of the API and its guests are
// held too, and none is kicked: what they publish would go to the partitions that it leaves.
func TestCell_HoldsAll(t *testing.T) {
	w := servedWide(t)
	p := partition.ID(5)
	n := w.ownerOf(p)
	id := idOf([]partition.ID{p}, p)
	open := func(what string, edit func(o *link.Open)) link.DownKind {
		t.Helper()
		v := n.visit(t, "x", func(o *link.Open) {
			o.Tenant = "t4"
			edit(o)
		})
		var got []record
		n.eventually(t, what, func() bool { got, _ = v.frames.take(); return len(got) > 0 })
		return got[0].Kind
	}
	kinds := map[string]func(o *link.Open){
		"the API": func(o *link.Open) { o.Guest, o.SessionExpiry, o.Labels.Listener = false, 0, link.ListenerAPI },
		"a guest": func(o *link.Open) { o.ClientID, _ = n.away() },
	}
	n.set.Hold("t4", "a", 1<<40)
	for what, edit := range kinds {
		if k := open(what, edit); k != link.DownMoved {
			t.Errorf("%s is held, and answered %d", what, k)
		}
	}
	n.set.Release("t4", "a")
	n.set.SetCell("t4", Cell{List: []partition.ID{p}, To: []partition.ID{2}, Stage: Leaving, Revision: 3})
	for what, edit := range kinds {
		if k := open(what, edit); k != link.DownMoved {
			t.Errorf("%s moves, and is answered %d", what, k)
		}
	}
	if a := n.set.AskHere(&link.Query{Kind: link.QueryKick, Tenant: "t4", ClientID: mqtt.ClientID(id)}); a.Error == "" {
		t.Errorf("%s is kicked while it moves", id)
	}
	n.set.SetCell("t4", Cell{List: []partition.ID{p}, Revision: 5})
	if k := open("the API", kinds["the API"]); k != link.DownOpened {
		t.Errorf("the API is answered %d when the tenant is there", k)
	}
}
