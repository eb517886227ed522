// SPDX-License-Identifier: Apache-2.0

package shard

// wideStage is how far the clients' tenant is in a move.
type wideStage int

// The stages: the record is written; what is misplaced is handed over; and is taken up.
const (
	atLeaving wideStage = iota
	atHanding
	atArriving
	wideStages
)

// doom is the broker that dies when a move comes to a stage.
type doom struct {
	at   wideStage
	name string
}

// dooms chooses the broker that dies in the next move, and when.
func (w *wide) dooms() {
	w.lives.Lock()
	defer w.lives.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.doom = &doom{wideStage(w.rand.IntN(int(wideStages))), w.nodes[w.rand.IntN(len(w.nodes))].name}
}

// reach has the broker die that is doomed to at this stage; others get what it had.
func (w *wide) reach(s wideStage) {
	w.lives.Lock()
	defer w.lives.Unlock()
	w.mu.Lock()
	d := w.doom
	if d == nil || d.at != s {
		w.mu.Unlock()
		return
	}
	w.doom, w.away = nil, d.name
	w.stats.deaths++
	n := w.nodeLocked(d.name)
	w.mu.Unlock()
	n.die()
	w.heal()
}

// revive brings the broker back that has died in a move.
func (w *wide) revive() {
	w.lives.Lock()
	defer w.lives.Unlock()
	w.mu.Lock()
	name := w.away
	w.doom = nil
	w.mu.Unlock()
	if name == "" {
		return
	}
	w.begin(name)
	w.mu.Lock()
	w.away = ""
	w.mu.Unlock()
}
