// SPDX-License-Identifier: Apache-2.0

package member

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/manormq/manor/services/broker/placement"
)

// Each script is one situation as the broker a sees it. A line is what happens and,
// behind ->, all that changed by it. The commands: at MS; beat NAME COUNT [ADDRESS
// [ZONE]]; gone NAME; tombstone NAME; returned NAME; synced; up NAME; down NAME; show,
// which says all members with their states, since when, and addresses; peers.
var scripts = map[string]string{
	"a member is alive while its heartbeat moves, suspected after 3 s, down after 10": `
		synced
		beat b 1 b:1 z -> changed b, peers, save
		show -> b alive 0 b:1 z
		at 1000
		beat b 2 b:1 z
		at 2000
		beat b 2 b:1 z
		at 3999
		show -> b alive 0 b:1 z
		at 4000 -> changed b
		show -> b suspected 4000 b:1 z
		at 10999
		at 11000 -> changed b
		show -> b down 11000 b:1 z
		at 60000
		peers -> b=b:1
		beat b 2 b:1 z
		show -> b down 11000 b:1 z
		beat b 3 b:1 z -> changed b
		show -> b alive 60000 b:1 z`,

	"the heartbeats that were there at the start may be of brokers that are dead": `
		beat b 7 b:1 -> changed b, peers, save
		beat c 7 c:1 -> changed c, peers, save
		synced
		show -> b suspected 0 b:1; c suspected 0 c:1
		at 900
		beat b 8 b:1 -> changed b
		show -> b alive 900 b:1; c suspected 0 c:1
		at 3900 -> changed b
		at 10000 -> changed c
		show -> b suspected 3900 b:1; c down 10000 c:1`,

	"a broker that starts while the bus is away knows the others from the file": `
		known b=b:1 c=c:1
		peers -> b=b:1 c=c:1
		show -> b suspected 0 b:1; c suspected 0 c:1
		at 200
		up b -> changed b
		at 10000 -> changed c
		at 600000
		show -> b alive 200 b:1; c down 10000 c:1
		down b
		at 602999
		at 603000 -> changed b
		at 610000 -> changed b
		show -> b down 610000 b:1; c down 10000 c:1
		up c -> changed c
		show -> b down 610000 b:1; c alive 610000 c:1`,

	"a link says that a broker lives whose bus is away, and a heartbeat that one lives whose links do not come": `
		synced
		beat b 1 b:1 -> changed b, peers, save
		beat c 1 c:1 -> changed c, peers, save
		up b
		at 1000
		beat c 2 c:1
		at 3000
		beat c 3 c:1
		at 6000 -> changed c
		beat c 4 c:1 -> changed c
		at 60000 -> changed c
		beat c 5 c:1 -> changed c
		show -> b alive 0 b:1; c alive 60000 c:1
		down b
		at 62999
		show -> b alive 0 b:1; c alive 60000 c:1
		at 63000 -> changed b changed c`,

	"with the bus away for this broker its links alone count": `
		synced
		beat a 1 a:1 -> changed a
		beat b 1 b:1 -> changed b, peers, save
		beat c 1 c:1 -> changed c, peers, save
		up b
		up c
		bus -> up
		at 2499
		bus -> up
		at 2500
		bus -> away
		at 90000
		show -> a alive 0 a:1; b alive 0 b:1; c alive 0 c:1
		down c
		at 93000 -> changed c
		at 100000 -> changed c
		show -> a alive 0 a:1; b alive 0 b:1; c down 100000 c:1
		beat a 2 a:1
		bus -> up
		beat c 9 c:1 -> changed c
		show -> a alive 0 a:1; b alive 0 b:1; c alive 100000 c:1`,

	"a clock that is set back, or jumps and is back, ages nobody; one that jumps makes silence": `
		synced
		at 5000
		beat b 1 b:1 -> changed b, peers, save
		at 1000
		at 3999
		show -> b alive 5000 b:1
		at 4000 -> changed b
		show -> b suspected 4000 b:1
		at 20000 -> changed b
		show -> b down 20000 b:1`,

	"a member that comes back at another address": `
		synced
		beat b 1 b:1 z -> changed b, peers, save
		at 20000 -> changed b
		peers -> b=b:1
		beat b 5 b:2 y -> changed b, peers, save
		peers -> b=b:2
		show -> b alive 20000 b:2 y
		beat b 6 b:2 x -> changed b, save
		beat b 7 - x -> changed b, peers, save
		peers`,

	"this broker itself is no peer, and is alive": `
		synced
		beat a 1 a:1 -> changed a
		show -> a alive 0 a:1
		peers
		at 60000
		show -> a alive 0 a:1
		gone a
		show
		beat a 2 a:1 -> changed a`,

	"who leaves is no peer any more, and comes again as a new one": `
		known b=b:1 c=c:1
		gone b -> left b, peers, save
		gone b
		gone x
		synced
		show -> c suspected 0 c:1
		peers -> c=c:1
		at 1000
		beat b 1 b:9 -> changed b, peers, save
		show -> b alive 1000 b:9; c suspected 0 c:1`,

	"the heartbeats of one that was forced out are not believed until it has returned": `
		synced
		beat b 1 b:1 -> changed b, peers, save
		up b
		tombstone b -> left b, peers, save
		gone b
		tombstone b
		at 1000
		beat b 2 b:1
		down b
		show
		peers
		returned b
		show
		beat b 1 b:1 -> changed b, peers, save
		show -> b alive 1000 b:1`,

	"one that was forced out is told, at once or when it starts": `
		synced
		beat a 1 a:1 -> changed a
		beat b 1 b:1 -> changed b, peers, save
		tombstone a -> retired
		gone a
		tombstone a
		beat a 2 a:1
		show -> b alive 0 b:1
		returned a
		beat a 3 a:1 -> changed a`,

	"a bucket that lost everything is no leaving": `
		known b=b:1
		synced
		at 500
		show -> b suspected 0 b:1
		peers -> b=b:1`,

	"a link that stays while its broker leaves and comes": `
		synced
		up b
		beat b 1 b:1 -> changed b, peers, save
		gone b -> left b, peers, save
		beat b 2 b:1 -> changed b, peers, save
		at 60000
		show -> b alive 0 b:1
		up x
		down x`,
}

func TestMachine(t *testing.T) {
	for name, script := range scripts {
		t.Run(name, func(t *testing.T) {
			m := New("a", nil, 0)
			for i, line := range strings.Split(strings.TrimSpace(script), "\n") {
				does, want, _ := strings.Cut(strings.TrimSpace(line), " -> ")
				if got := step(t, &m, strings.Fields(does)); got != want {
					t.Fatalf("line %d: %s\n\tdoes %q\n\twant %q", i+1, does, got, want)
				}
			}
		})
	}
}

// step carries one command out and says what it changed.
func step(t *testing.T, m **Machine, f []string) string {
	t.Helper()
	number := func(s string) int64 {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	var out Effects
	k := *m
	switch f[0] {
	case "known":
		var known []Member
		for _, s := range f[1:] {
			name, address, _ := strings.Cut(s, "=")
			known = append(known, Member{Name: name, Cluster: address, State: Alive, Since: 99})
		}
		*m = New("a", known, 0)
	case "at":
		k.At(number(f[1]), &out)
	case "beat":
		b := placement.Beat{Count: uint64(number(f[2]))}
		if len(f) > 3 && f[3] != "-" {
			b.Cluster = f[3]
		}
		if len(f) > 4 {
			b.Zone = f[4]
		}
		k.Beat(f[1], b, &out)
	case "gone":
		k.BeatGone(f[1], &out)
	case "tombstone":
		k.Tombstone(f[1], true, &out)
	case "returned":
		k.Tombstone(f[1], false, &out)
	case "synced":
		k.Synced()
	case "up", "down":
		k.Linked(f[1], f[0] == "up", &out)
	case "bus":
		if k.BusUp() {
			return "up"
		}
		return "away"
	case "show":
		var all []string
		for _, b := range k.Members() {
			all = append(all, strings.TrimSpace(fmt.Sprint(b.Name, " ", b.State, " ", b.Since, " ", b.Cluster, " ", b.Zone)))
		}
		return strings.Join(all, "; ")
	case "peers":
		var all []string
		peers := k.Peers()
		for _, name := range slices.Sorted(maps.Keys(peers)) {
			all = append(all, name+"="+peers[name])
		}
		return strings.Join(all, " ")
	default:
		t.Fatalf("no command %q", f[0])
	}
	return describe(out)
}

func describe(out Effects) string {
	var all []string
	if out.Retired {
		all = append(all, "retired")
	}
	for _, name := range out.Left {
		all = append(all, "left "+name)
	}
	slices.Sort(out.Changed)
	out.Changed = slices.Compact(out.Changed)
	if len(out.Changed) > 0 {
		all = append(all, "changed "+strings.Join(out.Changed, " changed "))
	}
	if out.Peers {
		all = append(all, "peers")
	}
	if out.Save {
		all = append(all, "save")
	}
	return strings.Join(all, ", ")
}

func TestState_String(t *testing.T) {
	got := fmt.Sprint(Alive, Suspected, Down, State(9))
	if diff := cmp.Diff("alive suspected down State(9)", got); diff != "" {
		t.Error(diff)
	}
}
