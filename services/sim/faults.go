// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"github.com/manormq/manor/services/broker/partition"
)

// fault begins something bad; what it returns ends it.
type fault func(w *World) (end func())

// schedule plans the faults of a world that lasts length.
func (w *World) schedule(length int64) {
	jump := clockJump
	if w.expires {
		jump = kill
	}
	kinds := []fault{
		kill, kill, powerCut, powerCut, diskLoss, powerCutAll, split, split, oneWay, flap, isolate,
		busCut, busCut, busDown, busFlaky, badLinks, slowDisk, jump, drain, pair, pair, pair, exile, siege, siege, dark, dark,
	}
	if w.sessions {
		kinds = append(kinds, gatewayCrash, gatewayCrash, breakLink, breakLink, anew, anew)
	}
	if w.spread > 0 {
		kinds = append(kinds, relabel, relabel, relabel)
	}
	few := 1 + w.rand.IntN(len(kinds)) // most worlds have a taste for some kinds
	from := w.rand.IntN(len(kinds))
	w.overture()
	for at := w.between(2*second, 8*second); at < length; at += w.between(200*ms, 9*second) {
		f := kinds[(from+w.rand.IntN(few))%len(kinds)]
		if w.rough != nil && w.chance(60) {
			f = w.ploy()
		}
		w.after(at-w.now, func() {
			if !w.faults || w.calm() {
				return
			}
			long := w.between(100*ms, 10*second)
			if w.chance(5) {
				long = 75 * second
			}
			w.suffer(f, long)
		})
	}
}

// suffer has a fault for some time, with much to do when it begins.
func (w *World) suffer(f fault, long int64) {
	if w.chance(60) {
		w.busy = w.now + 300*ms
		w.after(w.between(0, 300*ms), func() {
			if w.faults {
				w.after(long, f(w))
			}
		})
		return
	}
	w.after(long, f(w))
}

// trap has something bad happen right when the table has changed, since much is
// under way then.
func (w *World) trap(id partition.ID) {
	if !w.faults || w.calm() || !w.chance(w.traps) {
		return
	}
	kinds := []fault{kill, powerCut, powerCut, diskLoss, isolate, split, busCut, busDown, pair, ambush, ambush, ambush, dark}
	// At once, so before who proposed it hears of it, or a little later.
	w.after(max(w.between(-20*ms, 30*ms), 0), func() {
		if w.faults {
			w.prey = id
			w.after(w.between(50*ms, 5*second), kinds[w.rand.IntN(len(kinds))](w))
		}
	})
}

// heal ends all faults. What a fault ends later changes nothing then.
func (w *World) heal() {
	w.note("heal", "")
	w.faults = false
	for _, row := range w.net.cut {
		clear(row)
	}
	w.net.loss, w.net.double = 0, 0
	clear(w.bus.away)
	w.bus.down, w.bus.flaky = false, 0
	for _, n := range w.nodes {
		n.slow, n.draining = false, false
		clear(n.labels)
		n.start()
	}
	if w.chance(50) { // else only what is repeated gets through
		for _, n := range w.nodes {
			w.net.relink(n)
		}
	}
	w.bus.noticed()
}

// down stops a node, and returns what starts it again.
func (w *World) stop(n *node, what string) func() {
	w.note(what, n.name)
	if n.up {
		w.happens(what)
	}
	n.stop()
	return n.start
}

func kill(w *World) func() { return w.stop(w.pick(), "kill") }

func powerCut(w *World) func() { return w.pick().cutPower() }

func (n *node) cutPower() func() {
	if n.w.sessions && !n.w.commit && len(n.w.lastCopies(n)) > 0 {
		return n.w.stop(n, "kill") // what nobody else has would be lost
	}
	end := n.w.stop(n, "power cut")
	if n.store.Crash() {
		n.w.happens("power cut takes what was not synced")
	}
	n.powerCut = true
	return end
}

// powerCutAll has two or all nodes lose power at once.
func powerCutAll(w *World) func() {
	var ends []func()
	few, from := 2+w.rand.IntN(len(w.nodes)-1), w.rand.IntN(len(w.nodes))
	for i := range few {
		ends = append(ends, w.nodes[(from+i)%len(w.nodes)].cutPower())
	}
	return func() {
		for _, end := range ends {
			end()
		}
	}
}

// cuts cuts the directions for which cut holds, and tells of new links afterwards.
func (w *World) cuts(cut func(from, to int) bool) func() {
	var ends [][2]int
	for i := range w.nodes {
		for j := range w.nodes {
			if i != j && cut(i, j) {
				w.net.cut[i][j]++
				ends = append(ends, [2]int{i, j})
			}
		}
	}
	return func() {
		if !w.faults {
			return
		}
		for _, e := range ends {
			w.net.cut[e[0]][e[1]]--
			w.net.linked(w.nodes[e[0]], w.nodes[e[1]])
			w.net.linked(w.nodes[e[1]], w.nodes[e[0]])
		}
	}
}

// split divides the nodes in two; the bus reaches one side, both or none.
func split(w *World) func() {
	w.begins("split", "")
	side := make([]bool, len(w.nodes))
	for i := range side {
		side[i] = w.chance(50)
	}
	end := w.cuts(func(i, j int) bool { return side[i] != side[j] })
	cut := w.rand.IntN(3)
	for i := range side {
		if cut == 2 || cut == 1 && side[i] {
			w.bus.away[i]++
		}
	}
	w.bus.noticed()
	return func() {
		end()
		for i := range side {
			if w.faults && (cut == 2 || cut == 1 && side[i]) {
				w.bus.away[i]--
			}
		}
		w.bus.noticed()
	}
}

func oneWay(w *World) func() {
	w.note("one way", "")
	a, b := w.rand.IntN(len(w.nodes)), w.rand.IntN(len(w.nodes))
	if a != b {
		w.happens("one way")
	}
	return w.cuts(func(i, j int) bool { return i == a && j == b })
}

// isolate cuts a node from all others, but not from the bus.
func isolate(w *World) func() {
	n := w.pick()
	w.begins("isolate", n.name)
	return w.cuts(func(i, j int) bool { return i == n.at || j == n.at })
}

// flap cuts a node from all others, again and again.
func flap(w *World) func() {
	n := w.pick()
	w.begins("flap", n.name)
	var toggle func()
	var end func()
	over := false
	toggle = func() {
		switch {
		case end != nil:
			end()
			end = nil
		case !over && w.faults:
			end = w.cuts(func(i, j int) bool { return i == n.at || j == n.at })
		}
		if !over || end != nil {
			w.after(w.between(50*ms, 2*second), toggle)
		}
	}
	toggle()
	return func() { over = true }
}

// busCut cuts one node from the bus only.
func busCut(w *World) func() {
	n := w.pick()
	w.begins("bus cut", n.name)
	w.bus.away[n.at]++
	w.bus.noticed()
	return func() {
		if w.faults {
			w.bus.away[n.at]--
			w.bus.noticed()
		}
	}
}

func busDown(w *World) func() {
	w.begins("bus down", "")
	w.bus.down = true
	w.bus.noticed()
	return func() {
		w.bus.down = false
		w.bus.noticed()
	}
}

// dark has the bus go down and brokers, mostly all, be started anew meanwhile: killed, or
// by a power cut, one of them perhaps for longer. What they find of the table is what they
// kept. Then the bus comes back.
func dark(w *World) func() {
	w.begins("dark", "")
	w.bus.down = true
	w.bus.noticed()
	some, cut := w.chance(30), w.chance(20)
	for _, n := range w.nodes {
		if some && w.chance(50) {
			continue
		}
		start := n.start
		w.after(w.between(0, second), func() {
			if !w.faults || !n.up {
				return
			}
			if cut {
				n.cutPower()
			} else {
				w.stop(n, "kill")
			}
			down := w.between(10*ms, second)
			if w.chance(15) {
				down = w.between(2*second, 12*second)
			}
			w.after(down, start)
		})
	}
	w.after(w.between(4*second, 14*second), func() {
		w.bus.down = false
		w.bus.noticed()
	})
	return func() {}
}

func busFlaky(w *World) func() {
	w.begins("bus flaky", "")
	w.bus.flaky = 10 + w.rand.IntN(70)
	return func() { w.bus.flaky = 0 }
}

func badLinks(w *World) func() {
	w.begins("bad links", "")
	w.net.loss, w.net.double = 1+w.rand.IntN(25), w.rand.IntN(10)
	return func() { w.net.loss, w.net.double = 0, 0 }
}

func slowDisk(w *World) func() {
	n := w.pick()
	w.begins("slow disk", n.name)
	n.slow = true
	return func() { n.slow = false }
}

// clockJump sets a node's clock, by seconds or by hours, and does not set it back.
func clockJump(w *World) func() {
	n := w.pick()
	w.begins("clock jump", n.name)
	w.jumps++
	far := []int64{1000, 5000, 60_000, 3_600_000}[w.rand.IntN(4)]
	n.skew += w.between(-min(far, 900_000), far)
	return func() {}
}

// gold is the label of relabel: every second broker accepts it.
const gold = "gold"

// relabel has a partition be for brokers with a label, for a while. Brokers hear of it one
// after the other: their controllers have different plans meanwhile.
func relabel(w *World) func() {
	id := partition.ID(w.rand.IntN(w.partitions))
	say := func(label string) {
		w.note("label "+label, "", uint64(id))
		for _, n := range w.nodes {
			w.after(w.between(0, 3*second), func() {
				if w.faults {
					n.labels[id] = label
				}
			})
		}
	}
	w.happens("relabel")
	say(gold)
	return func() { say("") }
}

func drain(w *World) func() {
	n := w.pick()
	w.begins("drain", n.name)
	n.draining = true
	return func() { n.draining = false }
}
