// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"fmt"

	"github.com/manormq/manor/infra/kv/mem"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/placement"
	"github.com/manormq/manor/services/broker/shard"
)

// node is one broker: the shell around the machines.
type node struct {
	w    *World
	name partition.Broker
	at   int
	zone string

	// record is the newest of the tenant's cell that it has heard of, in worlds with places.
	record shard.Cell
	up     bool
	// run counts the starts; what was begun in an earlier one is not carried out.
	run      uint64
	powerCut bool // the last run ended with it
	// labels are those of partitions as it has heard of them, accepts those that it takes
	// beside none; none of both takes every partition without a label.
	labels   map[partition.ID]string
	accepts  []string
	draining bool
	skew     int64 // of its clock, in ms
	// latency is the most that a write takes, in microseconds, unless the disk is
	// slow now.
	latency int64
	slow    bool
	// fresh: its disk has never had what the others know. knows: it has been informed since startedAt,
	// when this run began; see informed.go.
	fresh, knows bool
	startedAt    int64
	// left is the revision of the bucket under which it left for good, 0 if it has not.
	left uint64
	// lostAt is when it lost its disk last, 0 for never.
	lostAt int64

	store    *mem.Store
	disk     disk
	replicas []*replica
	watch    placement.Watch
	control  placement.Controller
	beats    uint64
	// tableSeen is the revision up to which its watch has told.
	tableSeen uint64
	fx        partition.Effects
	// station has the sessions; it is nil in worlds without.
	station *station
}

// replica is a partition on a node.
type replica struct {
	*partition.Replica
	id     partition.ID
	wakeAt int64
	// waiting are the appends that wait for their commit.
	waiting  []*appended
	epoch    uint64
	snapshot []snapshot
	dark     bool // the bus was down when it began to serve
	cede     cede
}

type snapshot struct {
	peer partition.Broker
	id   uint64
	part uint32
	*partition.Snapshot
}

func newNode(w *World, i int) *node {
	return &node{
		w: w, at: i, name: partition.Broker(fmt.Sprintf("b%d", i+1)), store: mem.New(),
		latency: []int64{ms, 4 * ms, 40 * ms}[w.rand.IntN(3)],
		labels:  map[partition.ID]string{}, fresh: true,
	}
}

// clock is what the node believes the time to be, in ms.
func (n *node) clock() int64 { return n.w.now/ms + n.skew + 1_000_000 }

// during returns do for this run of the node only.
func (n *node) during(do func()) func() {
	run := n.run
	return func() {
		if n.up && n.run == run {
			do()
		}
	}
}

func (n *node) start() {
	if n.up || n.left > 0 {
		return
	}
	w := n.w
	n.up, n.run = true, n.run+1
	w.note("start", n.name, n.run)
	n.lost()
	n.watch, n.disk, n.tableSeen = placement.Watch{}, disk{}, 0
	n.knows, n.startedAt = false, w.now
	n.control = placement.Controller{Config: placement.Config{
		Self: n.name, Settle: 2000, Moves: 2,
		Replicas: func(p partition.ID) int { return w.replicas[p] },
		Label:    func(p partition.ID) string { return n.labels[p] },
	}}
	n.watch.At(n.clock())
	n.watch.Bus(w.bus.reaches(n))
	n.replicas = nil
	if w.sessions {
		n.station = newStation(n)
	}
	for p := range partition.ID(w.partitions) {
		stored, err := partition.Restore(n.store, p)
		if err != nil {
			w.History.Break("%s cannot read partition %d: %v", n.name, p, err)
			return
		}
		stored.PowerLost = n.powerCut && !w.commit
		r := &replica{Replica: partition.New(partition.Config{
			ID: p, Self: n.name, Run: n.run, Peers: &n.watch, LogKept: w.logKept, Informed: n.informed,
		}), id: p}
		n.replicas = append(n.replicas, r)
		n.step(r, &partition.Event{Kind: partition.Start, Stored: stored})
	}
	n.disk.started = func() { n.powerCut = false }
	n.beat()
	n.ping()
	n.decide()
	n.sync()
	w.net.relink(n)
	w.bus.tell(n)
}

// stop ends the process: what it had not given to the disk is gone.
func (n *node) stop() {
	if !n.up {
		return
	}
	n.w.note("stop", n.name)
	n.up = false
	w := n.w
	n.lost()
	for _, d := range w.devices {
		if d.at != nil && d.at.n == n {
			d.mayEnd()
		}
	}
	n.replicas, n.station = nil, nil
}

// step steps a replica and does what follows.
func (n *node) step(r *replica, e *partition.Event) {
	w := n.w
	n.watch.At(n.clock())
	fx := &n.fx
	fx.Reset()
	role := r.Role()
	r.Step(n.clock(), e, fx)
	last := r.Last()
	w.note("step", n.name, uint64(r.id), uint64(e.Kind), uint64(r.Role()), r.Epoch(), last.Epoch, last.N)
	if epoch := r.Table().Epoch; epoch < r.epoch {
		w.History.Break("%s: its copy of the entry of partition %d went from epoch %d to %d", n.name, r.id, r.epoch, epoch)
	} else {
		r.epoch = epoch
	}
	for _, write := range fx.Write {
		n.disk.add(n, diskOp{r: r, write: write})
	}
	for _, load := range fx.Load {
		n.disk.add(n, diskOp{r: r, load: load})
	}
	for i := range fx.Send {
		w.net.send(n, fx.Send[i].To, &fx.Send[i].Message)
	}
	if fx.Propose != nil {
		w.bus.propose(n, r, *fx.Propose)
	}
	if fx.ReadTable {
		w.bus.read(n, r)
	}
	if fx.Alarm != "" {
		w.note("alarm", n.name, uint64(r.id))
	}
	n.wake(r, fx.WakeIn)
	if fx.RoleChanged {
		n.roleChanged(r, role)
	}
	if fx.Committed > 0 {
		n.committed(r, fx.Committed)
	}
}

func (n *node) wake(r *replica, in int64) {
	at := n.w.now + in*ms
	if in == 0 || r.wakeAt > n.w.now && r.wakeAt <= at {
		return
	}
	r.wakeAt = at
	n.w.after(in*ms, n.during(func() {
		if r.wakeAt == at {
			r.wakeAt = 0
			n.step(r, &partition.Event{Kind: partition.Tick})
		}
	}))
}

func (n *node) roleChanged(r *replica, was partition.Role) {
	w := n.w
	w.note("role", n.name, uint64(r.id), uint64(r.Role()), r.Table().Epoch)
	if n.station != nil {
		n.station.roleChanged(r)
		return
	}
	switch r.Role() {
	case partition.Serving:
		if was != partition.Handing {
			r.waiting = nil
			r.dark = w.bus.down
			w.History.Serve(r.id, n.name, r.Table().Epoch, w.now, w.has)
		}
	case partition.Handing:
	case partition.Following, partition.Claiming, partition.Alarmed:
		r.waiting = nil // their clients are told that the connection is lost
	}
}

// committed acknowledges.
func (n *node) committed(r *replica, upTo uint64) {
	for len(r.waiting) > 0 && r.waiting[0].n <= upTo {
		a := r.waiting[0]
		if r.dark && n.w.bus.down {
			n.w.dark++
		}
		r.waiting = r.waiting[1:]
		if a.done != nil {
			a.done(nil)
			continue
		}
		n.w.History.Ack(a.Append, n.name, r.Table().Epoch, n.w.now)
	}
}

// beat rewrites the node's heartbeat each second.
func (n *node) beat() {
	n.beats++
	n.noteInformed()
	n.w.bus.beat(n, placement.Beat{Count: n.beats, Zone: n.zone, Labels: n.accepts, Draining: n.draining, Stopping: !n.informed()})
	n.w.after(second, n.during(n.beat))
}

// ping keeps the links alive.
func (n *node) ping() {
	for _, to := range n.w.nodes {
		if to != n {
			n.w.net.ping(n, to)
		}
	}
	if n.station != nil {
		for _, l := range n.station.lines {
			l.watch()
		}
	}
	n.w.after(700*ms, n.during(n.ping))
}

// decide runs the controller each second.
func (n *node) decide() {
	n.watch.At(n.clock())
	var rows []placement.Row
	for _, r := range n.replicas {
		rows = append(rows, placement.Row{ID: r.id, Table: r.Table(), Serving: r.Role() == partition.Serving})
	}
	for _, d := range n.control.Decide(&n.watch, rows) {
		if d.Create != nil {
			n.w.bus.create(n, d.ID, *d.Create)
			continue
		}
		n.plan(n.replicas[d.ID], d)
	}
	n.w.after(n.w.between(900*ms, 1100*ms), n.during(n.decide))
}
