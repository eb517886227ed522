// SPDX-License-Identifier: Apache-2.0

package sim

import "github.com/manormq/manor/services/broker/partition"

// network carries messages between the nodes, each direction on its own. It is
// worse than TCP: what arrives may be old, double or out of order.
type network struct {
	w *World
	// cut is how many faults cut the direction from one node to another.
	cut [][]int
	// loss and double are in percent, delay is the longest, in microseconds.
	loss, double int
	delay        int64
}

func (t *network) init(w *World) {
	t.w, t.delay = w, []int64{2 * ms, 10 * ms, 60 * ms}[w.rand.IntN(3)]
	for range w.nodes {
		t.cut = append(t.cut, make([]int, len(w.nodes)))
	}
}

// send encodes m and has it arrive, or not.
func (t *network) send(from *node, to partition.Broker, m *partition.Message) {
	n := t.w.node(to)
	if n == nil {
		return
	}
	bytes := m.Append(nil)
	t.carry(from, n, func() {
		m, err := partition.ParseMessage(bytes)
		if err != nil {
			t.w.History.Break("%s sent what cannot be read: %v", from.name, err)
			return
		}
		n.step(n.replicas[m.Partition], &partition.Event{Kind: partition.Received, Peer: from.name, Message: m})
	})
}

func (t *network) ping(from, to *node) { t.carry(from, to, func() {}) }

// carry has arrive happen at a node that is up then.
func (t *network) carry(from, to *node, arrive func()) {
	w := t.w
	times := 1
	switch {
	case w.chance(t.loss):
		w.happens("message lost")
		times = 0
	case w.chance(t.double):
		w.happens("message doubled")
		times = 2
	}
	for range times {
		delay := w.between(100, t.delay)
		if t.loss > 0 && w.chance(2) {
			delay += w.between(0, 2*second) // late, so behind what was sent later
		}
		w.after(delay, func() {
			if !to.up || t.cut[from.at][to.at] > 0 {
				if to.up {
					w.happens("message cut off")
				}
				return
			}
			to.watch.At(to.clock())
			to.watch.Heard(from.name)
			arrive()
		})
	}
}

// relink tells a node and all others that there are new links between them.
func (t *network) relink(n *node) {
	for _, o := range t.w.nodes {
		if o != n {
			t.linked(n, o)
			t.linked(o, n)
		}
	}
}

func (t *network) linked(at, peer *node) {
	t.w.after(t.w.between(ms, 300*ms), func() {
		if !at.up || !peer.up || t.cut[at.at][peer.at] > 0 || t.cut[peer.at][at.at] > 0 {
			return
		}
		for _, r := range at.replicas {
			at.step(r, &partition.Event{Kind: partition.Linked, Peer: peer.name})
		}
	})
}
