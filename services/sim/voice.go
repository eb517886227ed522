// SPDX-License-Identifier: Apache-2.0

package sim

import "github.com/manormq/manor/services/broker/metadata"

// The metadata of the brokers go over their links, as TCP carries them: what is on its way while the
// link is cut arrives later, unless the link is given up before. It may be behind what was sent later,
// and come twice.

// metaLink is what a node knows of the link to another one.
type metaLink struct {
	run uint64 // of the other end, 0 for none
	// ready is when it is made, good when it was last seen to carry.
	ready, good int64
}

// reachable are the nodes to whom the metadata of a node would now go.
func (m *meta) reachable() (names []string) {
	n := m.s.n
	w := n.w
	for i, o := range w.nodes {
		l := &m.links[i]
		switch {
		case o == n:
			continue
		case w.links(n, o) && l.run != o.run:
			*l = metaLink{run: o.run, ready: w.now + w.between(0, redial), good: w.now}
		case w.links(n, o):
			l.good = w.now
		case !o.up || o.run != l.run || w.now-l.good >= silence:
			*l = metaLink{}
		}
		if l.run != 0 && w.now >= l.ready {
			names = append(names, string(o.name))
		}
	}
	return names
}

// told has a message of the metadata arrive at another node.
func (w *World) told(from, to *node, message []byte) {
	times := 1
	if w.chance(w.net.double) {
		times = 2
	}
	for range times {
		delay := w.between(100, w.net.delay)
		if to.fresh && metadata.IsExchange(message) { // there is much that it has to get
			delay += w.between(0, w.metaLag)
		}
		w.arrive(from, to, from.run, to.run, w.now, delay, message)
	}
}

func (w *World) arrive(from, to *node, fromRun, toRun uint64, sent, delay int64, message []byte) {
	w.after(delay, func() {
		switch {
		case !to.up || to.run != toRun || from.run != fromRun:
		case w.net.cut[from.at][to.at] == 0:
			to.station.meta.post(metadata.Received{From: string(from.name), Message: append([]byte(nil), message...)})
		case w.now-sent < silence:
			w.arrive(from, to, fromRun, toRun, sent, 100*ms, message)
		}
	})
}
