// SPDX-License-Identifier: Apache-2.0

package placement

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/services/broker/partition"
)

func brokers(n, zones int) []Candidate {
	var out []Candidate
	for i := range n {
		c := Candidate{Name: partition.Broker(fmt.Sprintf("broker-%d", i))}
		if zones > 0 {
			c.Zone = fmt.Sprintf("zone-%d", i%zones)
		}
		out = append(out, c)
	}
	return out
}

const many = 4096

// Partitions are spread evenly, no broker has one twice, zones are kept apart, and
// a broker that comes takes about its share and has nothing else move.
func TestWanted_Properties(t *testing.T) {
	for _, n := range []int{2, 3, 5, 10} {
		for _, zones := range []int{0, 2, 3} {
			for replicas := 1; replicas <= 3; replicas++ {
				few, more := brokers(n, zones), brokers(n+1, zones)
				owned, held, moved, strayed := map[partition.Broker]int{}, 0, 0, 0
				for p := range partition.ID(many) {
					a, b := Wanted(p, replicas, "", few), Wanted(p, replicas, "", more)
					if len(a) != min(replicas, n) {
						t.Fatalf("%d replicas on %d brokers: %v", replicas, n, a)
					}
					seen, apart := map[partition.Broker]bool{}, map[string]bool{}
					for _, w := range a {
						seen[w] = true
						for _, c := range few {
							if c.Name == w {
								apart[c.Zone] = true
							}
						}
					}
					if len(seen) != len(a) || zones > 0 && len(apart) != min(len(a), zones, n) {
						t.Fatalf("partition %d: %v in the zones %v", p, a, apart)
					}
					owned[a[0]]++
					held += len(a)
					for _, w := range b {
						switch {
						case slices.Contains(a, w):
						case w == more[n].Name:
							moved++
						default:
							strayed++
						}
					}
				}
				for b, k := range owned {
					if want := many / n; k < want*8/10 || k > want*12/10 {
						t.Errorf("%d brokers, %d zones: %s owns %d, expected about %d", n, zones, b, k, want)
					}
				}
				if zones == 0 && replicas <= n {
					if want := held / (n + 1); moved < want*8/10 || moved > want*12/10 || strayed > 0 {
						t.Errorf("%d brokers, %d replicas: %d moved to a new one, expected about %d; %d moved elsewhere", n, replicas, moved, want, strayed)
					}
				}
			}
		}
	}
}

func TestWanted_WeightLabelDrain(t *testing.T) {
	all := brokers(3, 0)
	all[0].Weight = 3
	owned := map[partition.Broker]int{}
	for p := range partition.ID(many) {
		owned[Wanted(p, 1, "", all)[0]]++
	}
	if k := owned[all[0].Name]; k < many*55/100 || k > many*65/100 {
		t.Errorf("three of five shares own %d of %d", k, many)
	}
	all[1].Labels = []string{"acme"}
	all[2].Draining = true
	for p := range partition.ID(20) {
		if got := Wanted(p, 3, "", all); !slices.Equal(got, []partition.Broker{all[0].Name}) {
			t.Errorf("without a label: %v", got)
		}
		if got := Wanted(p, 3, "acme", all); !slices.Equal(got, []partition.Broker{all[1].Name}) {
			t.Errorf("with a label: %v", got)
		}
	}
}

func TestBeat(t *testing.T) {
	b := Beat{Count: 9, Zone: "z", Labels: []string{"", "acme"}, Weight: 16, Draining: true, Busy: true, Cluster: "10.0.0.1:44053", Links: "[::1]:44054", Version: "1.2.3"}
	got, err := ParseBeat(b.Append(nil))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(b, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for n := range b.Append(nil) {
		if _, err := ParseBeat(b.Append(nil)[:n]); err == nil {
			t.Errorf("%d bytes of a heartbeat are taken", n)
		}
	}
}

// A heartbeat of the first version is read, and one of a version to come: an upgrade
// has brokers of two versions.
func TestBeat_OtherVersions(t *testing.T) {
	first := []byte{1, 1, 4, 0, 0, 0, 0, 0, 0, 0, 9, 1, 'z', 1, 1, 'l'}
	got, err := ParseBeat(first)
	if diff := cmp.Diff(Beat{Count: 9, Zone: "z", Labels: []string{"l"}, Weight: 4, Draining: true}, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if _, err := ParseBeat(append(first, 0)); err == nil {
		t.Error("the first version ends with the labels, and more is taken")
	}
	want := Beat{Count: 9, Zone: "z", Cluster: "a:1", Links: "a:2", Version: "2.0"}
	later := append(want.Append(nil), 3, 'n', 'e', 'w')
	if _, err := ParseBeat(later); err == nil {
		t.Error("this version ends with the version, and more is taken")
	}
	later[0]++
	got, err = ParseBeat(later)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestBeatKey(t *testing.T) {
	for _, name := range []partition.Broker{"broker-1", "b.c/d e>*", "\xff\x00"} {
		if err := bus.CheckKey(BeatKey(name)); err != nil {
			t.Error(err)
		}
		if got, ok := ParseBeatKey(BeatKey(name)); !ok || got != name {
			t.Errorf("%q came back as %q, %v", name, got, ok)
		}
	}
	for _, key := range []string{"", "left.YQ", "a b", "?"} {
		if got, ok := ParseBeatKey(key); ok {
			t.Errorf("%q is the key of %q", key, got)
		}
	}
}

// FuzzBeat holds that what parses says the same when it is encoded, and is the same
// bytes if it is of this version.
func FuzzBeat(f *testing.F) {
	b := Beat{Count: 1, Zone: "z", Labels: []string{"l"}, Cluster: "a:1", Links: "a:2", Version: "v"}
	f.Add(b.Append(nil))
	f.Add([]byte{1, 1, 4, 0, 0, 0, 0, 0, 0, 0, 9, 1, 'z', 1, 1, 'l'})
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := ParseBeat(data)
		if err != nil {
			return
		}
		again := b.Append(nil)
		if data[0] == beatVersion && !slices.Equal(again, data) {
			t.Errorf("%x parses, and encodes as %x", data, again)
		}
		back, err := ParseBeat(again)
		if diff := cmp.Diff(b, back); err != nil || diff != "" {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
	})
}

// A heartbeat is judged by this clock, and only by steps forwards of it.
func TestWatch(t *testing.T) {
	var w Watch
	w.At(1000)
	w.Bus(true)
	w.Beat("a", Beat{Count: 1})
	w.At(4000)
	w.Beat("a", Beat{Count: 1}) // the same again
	if age := w.BeatAge("a"); age != 3000 {
		t.Errorf("age is %d, expected 3000", age)
	}
	w.At(100) // the clock was set back
	w.At(600)
	if age, up := w.BeatAge("a"), w.BusUp(); age != 3500 || up != 3500 {
		t.Errorf("age is %d, the bus up for %d, expected 3500", age, up)
	}
	w.Beat("a", Beat{Count: 2})
	w.Heard("a")
	w.Bus(false)
	if w.BeatAge("a") != 0 || w.Silence("a") != 0 || w.BusUp() >= 0 {
		t.Errorf("age %d, silence %d, bus %d", w.BeatAge("a"), w.Silence("a"), w.BusUp())
	}
	w.At(600 + Gone)
	if got := w.Brokers(0); len(got) != 0 {
		t.Errorf("gone, but %v", got)
	}
	w.Beat("a", Beat{Count: 3})
	if got := w.Brokers(1000); len(got) != 0 {
		t.Errorf("just back, but %v", got)
	}
	w.At(1700 + Gone)
	if got := w.Brokers(1000); len(got) != 1 {
		t.Errorf("back for a second, but %v", got)
	}
	w.Left("a")
	if got := w.Brokers(0); len(got) != 0 {
		t.Errorf("left, but %v", got)
	}
}

func watchOf(n int) *Watch {
	w := &Watch{}
	w.At(1)
	w.Bus(true)
	for _, c := range brokers(n, 0) {
		w.Beat(c.Name, Beat{Count: 1})
	}
	w.At(6001)
	return w
}

func control(self partition.Broker, moves int) *Controller {
	return &Controller{Config{
		Self: self, Settle: 1000, Moves: moves,
		Replicas: func(partition.ID) int { return 2 }, Label: func(partition.ID) string { return "" },
	}}
}

// Of a new region each partition is made by one broker, with nothing in sync but
// its owner.
func TestController_Creates(t *testing.T) {
	w := watchOf(3)
	rows := make([]Row, 64)
	for i := range rows {
		rows[i].ID = partition.ID(i)
	}
	made := map[partition.ID]partition.Broker{}
	for _, b := range brokers(3, 0) {
		for _, d := range control(b.Name, 1).Decide(w, rows) {
			if by, twice := made[d.ID]; twice || d.Create == nil {
				t.Fatalf("%d is made by %s and %s: %+v", d.ID, by, b.Name, d)
			}
			if e := d.Create; e.Epoch != 1 || e.Owner != b.Name || len(e.InSync) != 1 || len(e.Others) != 1 {
				t.Errorf("%+v", e)
			}
			made[d.ID] = b.Name
		}
	}
	if len(made) != len(rows) {
		t.Errorf("%d of %d made", len(made), len(rows))
	}
	w.Bus(false)
	w.Bus(true)
	if got := control("broker-0", 1).Decide(w, rows); got != nil {
		t.Errorf("right after the bus came back: %v", got)
	}
}

// Only as many partitions move at once as may, those that lack replicas first;
// drained ones say so.
func TestController_Throttles(t *testing.T) {
	w := watchOf(4)
	self := partition.Broker("broker-0")
	var rows []Row
	for p := range partition.ID(40) {
		e := partition.Entry{Epoch: 3, Owner: self, InSync: []partition.Broker{self, "broker-9"}}
		if p == 33 {
			e.InSync = e.InSync[:1]
		}
		rows = append(rows, Row{ID: p, Table: partition.Table{Entry: e, Revision: 5}, Serving: p != 7})
	}
	moving := func(c *Controller) (ids []partition.ID, draining int) {
		for _, d := range c.Decide(w, rows) {
			if len(d.Wanted) > 0 {
				ids = append(ids, d.ID)
			}
			if d.Draining {
				draining++
			}
		}
		return ids, draining
	}
	if ids, draining := moving(control(self, 3)); len(ids) != 3 || !slices.Contains(ids, 33) || draining != 0 {
		t.Errorf("%v move, %d are draining", ids, draining)
	}
	w.Beat(self, Beat{Count: 2, Draining: true})
	if ids, draining := moving(control(self, 100)); len(ids) != 39 || draining != 39 {
		t.Errorf("%v move, %d are draining, expected all that are served", ids, draining)
	}
	for _, d := range control(self, 100).Decide(w, rows) {
		if slices.Contains(d.Wanted, self) {
			t.Errorf("%d stays on a broker that drains: %v", d.ID, d.Wanted)
		}
	}
}
