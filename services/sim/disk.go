// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"slices"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/services/broker/partition"
)

// disk writes in groups, as a committer does: what comes while a group is written
// makes the next one.
type disk struct {
	queue []diskOp
	busy  bool
	// started is called once all that was written at the start is.
	started func()
}

// diskOp is a write, or a load if write is the zero Write.
type diskOp struct {
	r     *replica
	write partition.Write
	load  partition.Load
}

func (d *disk) add(n *node, op diskOp) {
	d.queue = append(d.queue, op)
	if !d.busy {
		d.busy = true
		n.w.after(n.diskTime(), n.during(func() { d.group(n) }))
	}
}

// diskTime is what a write takes now.
func (n *node) diskTime() int64 {
	if n.slow {
		return n.w.between(50*ms, 800*ms)
	}
	return n.w.between(200, n.latency)
}

// group carries out what is queued, then tells who asked.
func (d *disk) group(n *node) {
	ops := d.queue
	d.queue, d.busy = nil, false
	var b kv.Batch
	var done []diskOp
	fail := func(err error) {
		n.w.History.Break("disk of %s: %v", n.name, err)
	}
	flush := func(sync bool) {
		if err := n.store.Apply(&b, sync || n.w.commit); err != nil {
			fail(err)
		}
		b.Reset()
	}
	for i := range ops {
		op := &ops[i]
		if op.write.Kind == 0 {
			continue
		}
		if op.write.Kind == partition.Wipe {
			n.w.History.Wiped(op.r.id, n.name)
		}
		sync, err := partition.Stage(n.store, op.r.id, &op.write, &b)
		if err != nil {
			fail(err)
			return
		}
		if sync {
			flush(true)
		}
		if k := slices.IndexFunc(done, func(o diskOp) bool { return o.r == op.r }); k >= 0 {
			done[k] = *op
		} else {
			done = append(done, *op)
		}
	}
	flush(false)
	if d.started != nil {
		d.started()
		d.started = nil
	}
	run := n.run
	for _, op := range done {
		n.step(op.r, &partition.Event{Kind: partition.Written, Ticket: op.write.Ticket})
		if !n.up || n.run != run {
			return
		}
	}
	for i := range ops {
		if op := &ops[i]; op.write.Kind == 0 {
			d.load(n, op)
		}
	}
}

func (d *disk) load(n *node, op *diskOp) {
	e := partition.Event{Kind: partition.Loaded, Load: op.load}
	l := &op.load
	l.Bytes = int(n.w.between(200, 6000)) // pieces are small, so that there are many
	var err error
	if l.Part == 0 {
		e.Records, err = partition.ReadLog(n.store, op.r.id, l)
	} else {
		e.Batch, e.Last, e.Done, err = op.r.piece(n, l)
	}
	if err != nil {
		e.Failed = true
	}
	n.step(op.r, &e)
}

// piece reads the next piece of a snapshot for a peer.
func (r *replica) piece(n *node, l *partition.Load) (batch []byte, last partition.Last, done bool, err error) {
	i := slices.IndexFunc(r.snapshot, func(s snapshot) bool { return s.peer == l.Peer })
	if l.Part == 1 {
		s := snapshot{peer: l.Peer, id: l.Snapshot, Snapshot: partition.NewSnapshot(n.store, r.id)}
		if i < 0 {
			i, r.snapshot = len(r.snapshot), append(r.snapshot, s)
		} else {
			r.snapshot[i].Close()
			r.snapshot[i] = s
		}
	}
	if i < 0 || r.snapshot[i].id != l.Snapshot || r.snapshot[i].part+1 != l.Part {
		return nil, last, false, kv.ErrNotFound
	}
	r.snapshot[i].part++
	return r.snapshot[i].Next(l.Bytes)
}

// sync makes what was written durable every 20 ms, while there are writes.
func (n *node) sync() {
	if n.w.commit {
		return
	}
	if err := n.store.Apply(&kv.Batch{}, true); err != nil {
		n.w.History.Break("disk of %s: %v", n.name, err)
	}
	n.w.after(n.w.between(20*ms, 200*ms), n.during(n.sync))
}
