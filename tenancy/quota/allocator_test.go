// SPDX-License-Identifier: Apache-2.0

package quota_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/manormq/manor/tenancy/quota"
)

// Each script is one situation: gateways and what their clients want go in, what is lent
// comes out. Run with -rewrite after a change that is meant, and read the difference.
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		w := newWorld(1, quota.PublishRate)
		find := func(name string) *site {
			for _, s := range w.sites {
				if s.name == name {
					return s
				}
			}
			t.Fatalf("there is no %s", name)
			return nil
		}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			name := func(i int) *site { return find(d.CmdArgs[i].Key) }
			var out strings.Builder
			switch d.Cmd {
			case "kind": // first of all
				for k := range quota.Kinds {
					if k.String() == d.CmdArgs[0].Key {
						w.kind = k
					}
				}
			case "limit":
				_, _ = fmt.Sscan(d.CmdArgs[0].Key, &w.limit)
			case "join":
				var n int
				_, _ = fmt.Sscan(d.CmdArgs[0].Key, &n)
				for range n {
					w.add()
				}
			case "die":
				w.kill(name(0), false)
			case "leave":
				w.kill(name(0), true)
			case "cut":
				name(0).cut = true
			case "mend":
				name(0).cut = false
			case "loss":
				_, _ = fmt.Sscan(d.CmdArgs[0].Key, &w.loss)
			case "offer": // NAME=RATE...
				for _, a := range d.CmdArgs {
					_, _ = fmt.Sscan(a.Vals[0], &find(a.Key).offer)
				}
			case "size": // NAME=PIECE...
				for _, a := range d.CmdArgs {
					_, _ = fmt.Sscan(a.Vals[0], &find(a.Key).size)
				}
			case "run": // DURATION
				past, err := time.ParseDuration(d.CmdArgs[0].Key)
				if err != nil {
					t.Fatal(err)
				}
				most := 0.0
				before := map[*site]float64{}
				for _, s := range w.sites {
					before[s] = s.passed
				}
				w.run(past, func() { most = max(most, w.sum()) })
				for _, s := range w.sites {
					fmt.Fprintf(&out, "%s: lent %.3f", s.name, w.lent(s))
					if w.kind == quota.Connections {
						fmt.Fprintf(&out, ", %.0f connected\n", s.count)
					} else {
						fmt.Fprintf(&out, ", %.0f/s passed\n", (s.passed-before[s])/past.Seconds())
					}
				}
				fmt.Fprintf(&out, "at most %.3f lent\n", most)
				for _, x := range w.told {
					out.WriteString(x + "\n")
				}
				w.told = nil
			default:
				t.Fatalf("no command %s", d.Cmd)
			}
			return out.String()
		})
	})
}

// Whatever clients want, and wherever, what is lent over 3 s is at most 5% more than
// the limit, and who wants it gets it; also when reports are lost or late, and gateways
// come and go.
func TestTheLimitHolds(t *testing.T) {
	worst, least := 0.0, 2.0
	for seed := range uint64(60) {
		random := rand.New(rand.NewPCG(seed, 2))
		w := newWorld(seed, quota.PublishRate)
		w.loss, w.delay = 0.02*random.Float64(), time.Duration(1+random.IntN(100))*time.Millisecond
		for range 2 + random.IntN(6) {
			w.add()
		}
		var lent, passed []float64 // of each step
		before := 0.0
		each := func() {
			lent = append(lent, w.sum())
			all := 0.0
			for _, s := range w.sites {
				all += s.passed
			}
			passed = append(passed, max(0, all-before))
			before = all
		}
		w.run(3*time.Second, each)
		for range 12 {
			switch random.IntN(6) {
			case 0:
				if len(w.sites) < 10 {
					w.add()
				}
			case 1:
				if len(w.sites) > 1 {
					w.kill(w.sites[random.IntN(len(w.sites))], random.IntN(2) == 0)
				}
			}
			for _, s := range w.sites {
				if random.IntN(2) == 0 {
					s.offer = []float64{0, 5, 100, 300, 900, 5000}[random.IntN(6)]
				}
			}
			w.run(time.Duration(random.Int64N(int64(4*time.Second))), each)
		}
		window := int(3 * time.Second / step)
		sum := 0.0
		for i, x := range lent {
			sum += x
			if i >= window {
				sum -= lent[i-window]
			}
			if i >= 2*window { // once they have met
				worst = max(worst, sum/float64(window))
			}
		}
		// Then nothing changes any more, and as much passes as is wanted.
		for len(w.sites) < 3 {
			w.add()
		}
		wanted := 0.0
		for _, s := range w.sites {
			s.offer = []float64{0, 20, 200, 2000}[random.IntN(4)]
			wanted += s.offer
		}
		w.run(4*time.Second, each)
		mark := len(passed)
		w.run(5*time.Second, each)
		all := 0.0
		for _, x := range passed[mark:] {
			all += x
		}
		wanted = min(wanted, w.limit)
		if wanted > 0 {
			least = min(least, all/5/wanted)
		}
		if all/5 > 1.05*wanted {
			t.Errorf("seed %d: %.0f/s passed of %.0f wanted", seed, all/5, wanted)
		}
	}
	t.Logf("at most %.3f of a limit lent over 3 s, at least %.3f of what was wanted passed", worst, least)
	if worst > 1.05 || least < 0.95 {
		t.Errorf("at most %.3f of a limit lent over 3 s, at least %.3f of what was wanted passed; expected 0.95 to 1.05", worst, least)
	}
}

// Connections come in storms; there are never more than the limit, and in the end as
// many as want to be and may.
func TestConnectionsHold(t *testing.T) {
	worst := 0.0
	for seed := range uint64(60) {
		random := rand.New(rand.NewPCG(seed, 3))
		w := newWorld(seed, quota.Connections)
		w.limit = []float64{1, 3, 10, 100, 1000}[random.IntN(5)]
		w.loss, w.delay = 0.02*random.Float64(), time.Duration(1+random.IntN(100))*time.Millisecond
		for range 2 + random.IntN(4) {
			w.add()
		}
		each := func() {
			all := 0.0
			for _, s := range w.sites {
				all += s.count
			}
			worst = max(worst, all/w.limit)
		}
		w.run(3*time.Second, each)
		for range 10 {
			wanted := 0.0
			for _, s := range w.sites {
				s.offer = float64(int(w.limit * 2 * random.Float64() * float64(random.IntN(2))))
				wanted += s.offer
			}
			w.run(4*time.Second, each)
			all := 0.0
			for _, s := range w.sites {
				all += s.count
			}
			if want := min(wanted, w.limit); all < 0.97*want-1 {
				t.Errorf("seed %d: %.0f connected of %.0f that want to, at the limit %.0f, with %d gateways", seed, all, wanted, w.limit, len(w.sites))
			}
		}
	}
	if worst > 1 {
		t.Errorf("at most %.3f of a limit connected", worst)
	}
}

// A tenant far below its limits costs no message, nor memory.
func TestWhatIsFarBelowIsNotSpokenOf(t *testing.T) {
	a := quota.New("gw-1")
	now := start
	for range 40 {
		now = now.Add(quota.Interval)
		s := a.Tick(now, map[quota.Resource]quota.Need{{Tenant: "acme", Kind: quota.PublishRate}: {Used: 0.1, Want: 0.11}})
		if n := len(s.Report.Claims); n > 0 {
			t.Fatalf("%d claims are told", n)
		}
		for _, id := range []string{"gw-1", "gw-2", "gw-3"} {
			a.Hear(now, &quota.Report{From: id})
		}
	}
	if got := a.Lent(quota.Resource{Tenant: "acme", Kind: quota.PublishRate}); got != 1.0/3 {
		t.Errorf("lent %v of it, expected a third", got)
	}
}

// What all use together is known from what they tell.
func TestFull(t *testing.T) {
	a := quota.New("gw-1")
	r := quota.Resource{Tenant: "acme", Kind: quota.Connections}
	hear := func(from string, used float64) {
		a.Hear(start, &quota.Report{From: from, Claims: []quota.Claim{{Resource: r, Need: quota.Need{Used: used, Want: used, Unit: 0.01}, Held: used}}})
	}
	if a.Full(r) {
		t.Error("full before anything was told")
	}
	for i, x := range []struct {
		from string
		used float64
		full bool
	}{{"gw-1", 0.3, false}, {"gw-2", 0.69, false}, {"gw-3", 0.01, true}, {"gw-2", 0.68, false}} {
		if hear(x.from, x.used); a.Full(r) != x.full {
			t.Errorf("report %d: full %v, expected %v", i, a.Full(r), x.full)
		}
	}
}

func FuzzDecode(f *testing.F) {
	r := quota.Report{From: "gw-1", Claims: []quota.Claim{{Resource: quota.Resource{Tenant: "acme", Kind: 2}, Need: quota.Need{Used: 0.5, Want: 1, Waits: true}, Held: 0.5}}}
	f.Add(r.Encode()[0])
	f.Add([]byte{1, 1, 1, 'x'})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := quota.Decode(b)
		if err != nil {
			return
		}
		a := quota.New("gw")
		a.Hear(start, r)
		a.Hear(start, &quota.Report{From: "gw"})
		a.Tick(start.Add(quota.Interval), nil)
		for _, c := range r.Claims {
			if lent := a.Lent(c.Resource); lent < 0 || lent > 1 {
				t.Errorf("%v lent", lent)
			}
		}
	})
}
