// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"maps"
	"reflect"
	"testing"
	"time"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/partition"
)

// moving is a tenant that two brokers, a and b, bring from 0 and 1 to 1 and 2.
var moving = Cell{List: []partition.ID{0, 1}, To: []partition.ID{1, 2}, Stage: Leaving, Revision: 5}

// said is what a and b say when all is quiet and nothing is handed over; edit changes what name
// says.
func saidBut(name string, edit func(r *Relocation)) map[string]Relocation {
	out := map[string]Relocation{
		"a": {Revision: 5, Stage: Leaving, Quiet: true, Flown: 7, Stopped: []partition.ID{0, 2}},
		"b": {Revision: 5, Stage: Leaving, Quiet: true, Stopped: []partition.ID{1}, Empty: []partition.ID{1}},
	}
	if r, ok := out[name]; ok {
		edit(&r)
		out[name] = r
	}
	return out
}

// onward is what is said when it is decided that the tenant goes on.
func onward(said map[string]Relocation) map[string]Relocation {
	r := said["a"]
	r.Course = Onward
	said["a"] = r
	return said
}

// look is a look at which all of a and b are alive.
func look(said map[string]Relocation) *Look {
	return &Look{Members: []string{"a", "b"}, Alive: []string{"a", "b"}, Said: said, MayTurn: true}
}

// A tenant goes on when all brokers have been quiet at two looks with the same numbers; a broker
// that does not answer, lacks the record, or serves what it may have lost begins that anew.
func TestMover_Decides(t *testing.T) {
	good := func() *Look { return look(saidBut("", nil)) }
	for name, bad := range map[string]map[string]Relocation{
		"b does not answer":       {"a": saidBut("", nil)["a"]},
		"a has an older record":   saidBut("a", func(r *Relocation) { r.Revision = 4 }),
		"b is not quiet":          saidBut("b", func(r *Relocation) { r.Quiet = false }),
		"b serves what is behind": saidBut("b", func(r *Relocation) { r.Behind = true }),
		"2 is not served":         saidBut("a", func(r *Relocation) { r.Stopped = []partition.ID{0} }),
		"1 is not served":         saidBut("b", func(r *Relocation) { r.Stopped = nil }),
		"a has sent something":    saidBut("a", func(r *Relocation) { r.Flown = 8 }),
	} {
		var m Mover
		for i, l := range []*Look{good(), look(bad), good()} {
			if o := m.Next(moving, l); o != (Order{}) {
				t.Errorf("%s: look %d orders %+v", name, i, o)
			}
		}
		if o := m.Next(moving, good()); o != (Order{Decide: Onward}) {
			t.Errorf("%s: the second good look in a row orders %+v", name, o)
		}
	}
}

// Before anything is decided a broker that is away, or a move that takes too long, has the tenant
// stay where it is, unless a broker may not know of that.
func TestMover_TurnsBack(t *testing.T) {
	for _, x := range []struct {
		name string
		edit func(l *Look)
		want Order
	}{
		{"all are there", func(*Look) {}, Order{}},
		{"b is away", func(l *Look) { l.Alive, l.Said = l.Alive[:1], map[string]Relocation{"a": l.Said["a"]} }, Order{Decide: Back}},
		{"b is away, and of an older version", func(l *Look) { l.Alive, l.MayTurn = l.Alive[:1], false }, Order{}},
		{"b does not answer", func(l *Look) { delete(l.Said, "b"); l.Waited = turnMost - 1 }, Order{}},
		{"b does not answer for long", func(l *Look) { delete(l.Said, "b"); l.Waited = turnMost }, Order{Decide: Back}},
		{"it is decided", func(l *Look) { l.Said = saidBut("b", func(r *Relocation) { r.Course = Back }) }, Order{Return: true}},
		{"it is decided, by a broker that is not quiet", func(l *Look) {
			l.Said = saidBut("b", func(r *Relocation) { r.Course, r.Quiet = Back, false })
		}, Order{Return: true}},
		{"it was lost, and decided again behind a hand-over", func(l *Look) {
			l.Said = onward(saidBut("b", func(r *Relocation) { r.Course = Back }))
		}, Order{Hand: true}},
		{"it was decided of an earlier move", func(l *Look) { l.Said = saidBut("b", func(r *Relocation) { r.Course, r.Revision = Back, 2 }) }, Order{}},
	} {
		l := look(saidBut("", nil))
		x.edit(l)
		var m Mover
		if got := m.Next(moving, l); got != x.want {
			t.Errorf("%s: %+v, expected %+v", x.name, got, x.want)
		}
	}
}

// What is decided to go on does, at once and whoever is away, if all partitions are served; and it
// never turns back.
func TestMover_GoesOn(t *testing.T) {
	empty := func(r *Relocation) { r.Empty = []partition.ID{0} }
	for _, x := range []struct {
		name string
		said map[string]Relocation
		want Order
	}{
		{"all are there", onward(saidBut("", nil)), Order{Hand: true}},
		{"nothing is left", onward(saidBut("a", empty)), Order{Hand: true, Advance: true}},
		{"who served 1 is away", map[string]Relocation{"a": onward(saidBut("a", empty))["a"]}, Order{}},
		{"who served 1 is away, and a serves it", map[string]Relocation{"a": onward(saidBut("a", func(r *Relocation) {
			r.Stopped, r.Empty = []partition.ID{0, 1, 2}, []partition.ID{0, 1}
		}))["a"]}, Order{Hand: true, Advance: true}},
		{"b is not quiet", onward(saidBut("b", func(r *Relocation) { r.Quiet = false })), Order{}},
	} {
		l := look(x.said)
		l.Alive, l.Waited = l.Alive[:1], time.Hour
		var m Mover
		if got := m.Next(moving, l); got != x.want {
			t.Errorf("%s: %+v, expected %+v", x.name, got, x.want)
		}
	}
}

// A tenant arrives when all is taken up and all brokers that are there know the same routes, or
// after a while.
func TestMover_Arrives(t *testing.T) {
	next := Cell{List: moving.To, Stage: Arriving, Revision: 6}
	arrived := map[string]Relocation{
		"a": {Revision: 6, Stage: Arriving, Quiet: true, Stopped: []partition.ID{2}},
		"b": {Revision: 6, Stage: Arriving, Quiet: true, Stopped: []partition.ID{1}},
	}
	but := func(name string, edit func(r *Relocation)) map[string]Relocation {
		out := maps.Clone(arrived)
		r := out[name]
		edit(&r)
		out[name] = r
		return out
	}
	owners, taken := map[partition.ID]string{1: "b", 2: "a"}, map[partition.ID]string{1: "a", 2: "a"}
	// a says that it has arrived in 1, which it has lost.
	both := []partition.ID{1, 2}
	stale := func(edit func(r *Relocation)) map[string]Relocation {
		out := but("b", edit)
		r := out["a"]
		r.Stopped = both
		out["a"] = r
		return out
	}
	lacks := but("b", func(r *Relocation) { r.Routes = 1 })
	all := map[string]Relocation{"a": but("a", func(r *Relocation) { r.Stopped = []partition.ID{1, 2} })["a"]}
	for _, x := range []struct {
		name    string
		owners  map[partition.ID]string
		said    map[string]Relocation
		alive   []string
		after   time.Duration // between two looks that are the same
		advance bool
		unequal bool
	}{
		{"all have it", owners, arrived, []string{"a", "b"}, 0, true, false},
		{"1 has not taken up what it was handed", owners, but("b", func(r *Relocation) { r.Stopped = nil }), []string{"a", "b"}, time.Hour, false, false},
		{"b lacks a route", owners, lacks, []string{"a", "b"}, unequalMost - 1, false, false},
		{"b lacks a route for long", owners, lacks, []string{"a", "b"}, unequalMost, true, true},
		{"b is away", taken, all, []string{"a"}, 0, true, false},
		{"b does not answer", taken, all, []string{"a", "b"}, silentMost - 1, false, false},
		{"b does not answer for long", taken, all, []string{"a", "b"}, silentMost, true, true},
		{"b has an older record for long", owners, but("b", func(r *Relocation) { r.Revision, r.Stopped = 5, nil }), []string{"a", "b"}, silentMost, false, false},
		{"1 is behind at its owner, and a former one has arrived", owners, stale(func(r *Relocation) { r.Behind, r.Stopped = true, nil }), []string{"a", "b"}, time.Hour, false, false},
		{"the owner of 1 does not answer, and a former one has arrived", owners, map[string]Relocation{"a": stale(func(*Relocation) {})["a"]}, []string{"a"}, time.Hour, false, false},
		{"b is behind in what it has lost", owners, but("b", func(r *Relocation) { r.Behind = true }), []string{"a", "b"}, silentMost - 1, false, false},
		{"b is behind in what it has lost for long", owners, but("b", func(r *Relocation) { r.Behind = true }), []string{"a", "b"}, silentMost, true, true},
		{"b is not quiet for long", owners, but("b", func(r *Relocation) { r.Quiet = false }), []string{"a", "b"}, time.Hour, false, false},
	} {
		var m Mover
		l := look(x.said)
		l.Alive = x.alive
		l.Owner = func(p partition.ID) string { return x.owners[p] }
		m.Next(next, l)
		l.Waited = x.after
		if got := m.Next(next, l); got != (Order{Advance: x.advance}) || m.Unequal() != x.unequal {
			t.Errorf("%s: %+v, unequal %t", x.name, got, m.Unequal())
		}
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
