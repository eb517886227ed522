// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"testing"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/services/broker/partition"
)

// TestGaveUp holds who may be given up: who has lost the last whole copy, and who was left without
// one by a change that was on its way when the disk was lost. It is told from an owner that leaves
// nobody whole in sync, which no disk that was lost makes good.
func TestGaveUp(t *testing.T) {
	both, one := []partition.Broker{"b1", "b2"}, []partition.Broker{"b1"}
	for _, tt := range []struct {
		name string
		do   func(w *World, propose func(at uint64, epoch uint64))
		left bool // out: it is known who has all
		fine bool
	}{
		{"while all are whole", func(*World, func(uint64, uint64)) {}, false, false},
		{"the disk of one is lost", func(w *World, _ func(uint64, uint64)) {
			w.lose(w.nodes[0])
		}, false, false},
		{"the last of two is lost", func(w *World, _ func(uint64, uint64)) {
			w.lose(w.nodes[0])
			for !w.gone[0] { // else it is killed
				w.lose(w.nodes[1])
			}
		}, false, true},
		{"the disk is lost with the change on its way", func(w *World, propose func(uint64, uint64)) {
			propose(2, 3)
			w.lose(w.nodes[0])
		}, true, true},
		{"the change does not arrive", func(w *World, propose func(uint64, uint64)) {
			propose(1, 3)
			w.lose(w.nodes[0])
		}, false, false},
		{"the change is proposed after the loss", func(w *World, propose func(uint64, uint64)) {
			w.lose(w.nodes[0])
			propose(2, 3)
		}, false, false},
		{"and its owner changes the table again", func(w *World, propose func(uint64, uint64)) {
			propose(2, 3)
			w.lose(w.nodes[0])
			w.runUntil(w.now + second)
			propose(3, 4)
		}, true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(1, true, nil)
			w.events, w.traps, w.replicas = nil, 0, []int{2}
			for _, b := range both {
				write := partition.Write{Kind: partition.PutState, State: partition.State{Epoch: 2, Copy: partition.Whole}}
				var batch kv.Batch
				if _, err := partition.Stage(w.node(b).store, 0, &write, &batch); err != nil {
					t.Fatal(err)
				}
				if err := w.node(b).store.Apply(&batch, true); err != nil {
					t.Fatal(err)
				}
			}
			w.bus.put(0, 0, &partition.Entry{Epoch: 1, Owner: "b1", InSync: both})
			w.bus.put(0, 1, &partition.Entry{Epoch: 2, Owner: "b1", InSync: both})
			tt.do(w, func(at, epoch uint64) {
				w.bus.propose(w.nodes[0], &replica{id: 0}, partition.Proposal{
					At: at, Entry: partition.Entry{Epoch: epoch, Owner: "b1", InSync: one, Others: []partition.Broker{"b2"}},
				})
			})
			w.runUntil(w.now + second)
			w.gaveUp(0)
			if got := !w.broken(); got != tt.fine || w.left[0] != tt.left {
				t.Errorf("fine %v, known who has all %v; expected %v, %v: %v", got, w.left[0], tt.fine, tt.left, w.History.Broken())
			}
		})
	}
}
