// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"maps"
	"slices"
	"time"

	"github.com/manormq/manor/services/broker/cluster"
	"github.com/manormq/manor/services/broker/partition"
)

// chaos does one thing that happens to clusters.
func (w *wide) chaos() {
	w.lives.Lock()
	defer w.lives.Unlock()
	w.mu.Lock()
	dice, p := w.rand.IntN(20), partition.ID(w.rand.IntN(wideParts))
	n := w.nodes[w.rand.IntN(len(w.nodes))]
	planned := w.rand.IntN(2) == 0
	owner := w.parts[p].owner
	var lost []*wideRequest
	if dice >= 12 && dice < 18 {
		for _, name := range slices.Sorted(maps.Keys(n.links)) {
			lost = append(lost, w.cutLocked(n.links[name])...)
			n.links[name].down = true
			w.stats.cuts++
		}
	}
	w.mu.Unlock()
	switch {
	case dice < 9:
		w.begins(p, n, planned)
	case dice < 12: // it is lost and won back
		if owner != "" {
			w.mu.Lock()
			n = w.nodeLocked(owner)
			pause := time.Duration(w.rand.IntN(4)) * time.Millisecond
			w.mu.Unlock()
			if planned { // while it is about to move
				n.set.Cede(p, func() {})
				time.Sleep(pause)
			}
			w.begins(p, n, false)
		}
	case dice < 18:
		for _, r := range lost {
			r.done(cluster.Answer{Err: cluster.ErrLost})
		}
		w.mu.Lock()
		for _, l := range n.links {
			l.down = false
		}
		w.mu.Unlock()
	case dice == 18:
		w.mu.Lock()
		away := w.away != "" || w.doom != nil
		w.mu.Unlock()
		if away { // two of three would be
			return
		}
		w.stats.crashes++
		n.die()
		w.heal()
		w.begin(n.name)
	}
}

// heal has somebody serve what nobody does.
func (w *wide) heal() {
	for p := range partition.ID(wideParts) {
		w.mu.Lock()
		n := w.nodes[w.rand.IntN(len(w.nodes))]
		for n.deadLocked() {
			n = w.nodes[w.rand.IntN(len(w.nodes))]
		}
		free := w.parts[p].owner == ""
		w.mu.Unlock()
		if free {
			w.begins(p, n, false)
		}
	}
}
