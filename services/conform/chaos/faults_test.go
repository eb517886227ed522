// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// world is a region under load.
type world struct {
	*Region
	load *Load
	rate int // publishes a second of all publishers
}

// fault is something that happens to a world. do returns when it is over: all
// processes run and reach each other again.
type fault struct {
	name string
	do   func()
	// most is how long a publisher may wait for an acknowledgement; 0 is any time.
	most time.Duration
}

// tolerable is how long publishers may wait where one broker, or NATS, is lost.
const tolerable = 10 * time.Second

// faults are all there are, on nodes chosen anew.
func (w *world) faults() (all []fault) {
	wanted := regexp.MustCompile(*only)
	add := func(most time.Duration, name string, do func()) {
		if wanted.MatchString(name) {
			all = append(all, fault{name, do, most})
		}
	}
	for _, role := range []string{"broker", "gateway", "nats", "tenancy", "broker"} {
		n, away := w.one(role), rand.N(8*time.Second)
		add(tolerable, fmt.Sprintf("kill -9 %s for %.1f s", n.Name, away.Seconds()), func() { w.restart(away, (*Node).Kill, n) })
	}
	b, away := w.one("broker"), rand.N(8*time.Second)
	add(tolerable, "disk of "+b.Name+" lost", func() { w.restart(away, func(n *Node) { n.Kill(); n.Wipe() }, b) })
	stopped, pause := w.one("broker"), 2*time.Second+rand.N(18*time.Second)
	add(tolerable, fmt.Sprintf("%s stands still for %.1f s", stopped.Name, pause.Seconds()), func() {
		stopped.Signal(syscall.SIGSTOP)
		time.Sleep(pause)
		stopped.Signal(syscall.SIGCONT)
	})
	add(0, "kill -9 all brokers", func() { w.restart(0, (*Node).Kill, w.Of("broker")...) })
	add(tolerable, "rolling restart", w.roll)
	add(tolerable, fmt.Sprintf("NATS gone for %v", *withoutIt), func() { w.withoutNATS(*withoutIt) })
	add(tolerable, "NATS flaps", func() {
		for range 5 {
			for _, n := range w.Of("nats") {
				n.Kill()
			}
			time.Sleep(rand.N(3 * time.Second))
			for _, n := range w.Of("nats") {
				n.Start()
			}
			time.Sleep(rand.N(3 * time.Second))
		}
		for _, n := range w.Of("nats") {
			n.Ready(time.Minute)
		}
	})
	if w.network != nil {
		w.partitions(add)
	} else { // the command has to come from the broker's own machine
		v, after := w.one("broker"), rand.N(150*time.Millisecond)
		add(tolerable, fmt.Sprintf("the tenant goes elsewhere, and %s is killed after %d ms", v.Name, after.Milliseconds()), func() { w.placeAndKill(v, after) })
	}
	return all
}

// placeAndKill has the tenant go to other partitions and kills a broker meanwhile: before that is
// back the tenant is there, or has stayed.
func (w *world) placeAndKill(victim *Node, after time.Duration) {
	brokers := w.Of("broker")
	at := brokers[slices.IndexFunc(brokers, func(n *Node) bool { return n != victim })]
	ended := make(chan string, 1)
	go func() {
		_, out := w.place(at, "place", "chaos", "--partitions", somePartitions())
		ended <- out
	}()
	time.Sleep(after) // some of the move
	victim.Kill()
	out := <-ended
	for begun := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		moves, now := w.place(at, "show", "chaos")
		if !moves {
			say("  the tenant is somewhere %.1f s after the command: %s", time.Since(begun).Seconds(), out)
			break
		}
		if time.Since(begun) > tolerable {
			w.t.Errorf("the tenant is on its way while %s is away: %s, then %s", victim.Name, out, now)
			break
		}
	}
	w.restart(0, func(*Node) {}, victim)
}

// place asks a broker for a command about tenants, and reports whether the tenant may be on its
// way: it is, or there is no answer.
func (w *world) place(at *Node, args ...string) (moves bool, out string) {
	args = append(append([]string{"admin", "tenant"}, args...), "--operator", "http://"+at.Addr("operator"))
	b, err := exec.CommandContext(w.t.Context(), filepath.Join(folder, "manor"), args...).CombinedOutput()
	out = strings.TrimSpace(string(b))
	return err != nil || strings.Contains(out, "leaving") || strings.Contains(out, "arriving"), out
}

// partitions are the faults of the network.
func (w *world) partitions(add func(time.Duration, string, func())) {
	split := func(most time.Duration, name string, cut ...func() func()) {
		lasts := 2*time.Second + rand.N(18*time.Second)
		add(most, fmt.Sprintf("%s for %.1f s", name, lasts.Seconds()), func() {
			var joins []func()
			for _, c := range cut {
				joins = append(joins, c())
			}
			time.Sleep(lasts)
			for _, j := range joins {
				j()
			}
		})
	}
	way := func(from, to []*Node) func() func() { return func() func() { return w.network.Cut(from, to) } }
	for role, most := range map[string]time.Duration{"broker": tolerable, "gateway": 0, "nats": tolerable} {
		n := w.one(role)
		split(most, n.Name+" cut off", func() func() { return w.network.Isolate(n) })
	}
	brokers := w.Of("broker")
	rand.Shuffle(len(brokers), func(i, j int) { brokers[i], brokers[j] = brokers[j], brokers[i] })
	a, b, c, nats := brokers[:1], brokers[1:2], brokers[2:], w.Of("nats")
	split(0, a[0].Name+" and "+b[0].Name+" apart", way(a, b), way(b, a))
	split(0, "nothing from "+b[0].Name+" to "+c[0].Name, way(b, c))
	split(2*tolerable, a[0].Name+" without NATS", way(a, nats), way(nats, a))
	split(0, b[0].Name+" without the others", way(b, brokers[2:]), way(brokers[2:], b), way(b, a), way(a, b))
	g := []*Node{w.one("gateway")}
	split(0, g[0].Name+" and "+c[0].Name+" apart", way(g, c), way(c, g))
}

func (w *world) one(role string) *Node {
	of := w.Of(role)
	return of[rand.IntN(len(of))]
}

// restart ends nodes, all at once, and starts them again after away.
func (w *world) restart(away time.Duration, end func(*Node), nodes ...*Node) {
	for _, n := range nodes {
		end(n)
	}
	time.Sleep(away) // how long the fault lasts
	for _, n := range nodes {
		n.Start()
	}
	for _, n := range nodes {
		n.Ready(time.Minute)
	}
}

// roll restarts every process in order, each once the region is well again and all
// clients are back.
func (w *world) roll() {
	for _, n := range w.Nodes {
		begun := time.Now()
		n.Stop()
		stopped := time.Since(begun)
		n.Start()
		n.Ready(time.Minute)
		ready := time.Since(begun)
		settled := w.Settled(time.Minute)
		say("  %s: stopped after %.1f s, ready after %.1f s, in sync after %.1f s, all back after %.1f s", n.Name, stopped.Seconds(),
			ready.Seconds(), (ready + settled).Seconds(), (ready + settled + w.load.Back(30*time.Second)).Seconds())
	}
}

// withoutNATS takes all NATS servers away. Nobody may notice.
func (w *world) withoutNATS(d time.Duration) {
	for _, n := range w.Of("nats") {
		n.Kill()
	}
	begun, acked, lost := time.Now(), w.load.Acked(), w.load.Lost()
	for time.Since(begun) < d {
		time.Sleep(min(d, 5*time.Second))
		w.load.Back(5 * time.Second)
	}
	acked, lost = w.load.Acked()-acked, w.load.Lost()-lost
	if rate := float64(acked) / time.Since(begun).Seconds(); rate < 0.8*float64(w.rate) || lost > 0 {
		w.t.Errorf("without NATS %.0f publishes a second were acknowledged, of %d, and %d connections were lost", rate, w.rate, lost)
	}
	w.restart(0, (*Node).Kill, w.Of("nats")...)
}
