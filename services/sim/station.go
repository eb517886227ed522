// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/services/broker/cluster"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/shard"
	"github.com/manormq/manor/services/sim/check"
)

// station is the sessions of a node in one run of it: a real shard.Set, whose
// partitions are the node's replicas. It is the shard.Cluster of the Set, and the
// shell that a host is around the replicas.
type station struct {
	n       *node
	set     *shard.Set
	link    *shard.Link
	inlets  map[partition.Broker]*shard.Inlet
	placed  map[string]bool // tenants whose cells are known here
	owned   []ownership     // by partition
	lines   []*line         // by node
	stepped bool            // a step is planned
	meta    *meta

	devices map[link.Channel]*device
	// left are channels whose devices have opened another one, until they are closed.
	left map[link.Channel]bool
	last link.Channel
}

// ownership is what a host knows of a replica besides its own state: the appends that
// wait for it to serve again, whether it was lost and since which epoch it serves.
type ownership struct {
	held  []held
	lost  bool
	since uint64
}

type held struct {
	epoch uint64
	batch []byte
	done  func(error)
}

// errLost is for appends whose partition was lost before the commit, errNotOwner for
// those that come when it is.
var (
	errLost     = errors.New("the partition was lost before the commit")
	errNotOwner = errors.New("this broker does not own the partition")
)

func newStation(n *node) *station {
	w := n.w
	s := &station{
		n: n, inlets: map[partition.Broker]*shard.Inlet{}, owned: make([]ownership, w.partitions),
		lines: make([]*line, len(w.nodes)), devices: map[link.Channel]*device{}, placed: map[string]bool{}, left: map[link.Channel]bool{},
	}
	for i, to := range w.nodes {
		s.lines[i] = &line{from: s, to: to}
	}
	var err error
	if s.set, err = shard.New(shard.Config{
		Store: n.store, Partitions: w.partitions, Shards: 1 + n.at%2, Stepped: true,
		WriteDelay: time.Duration(n.at%2) * 60 * time.Millisecond, // every other broker has what is unwritten
		Now:        n.clock, Cluster: s, Log: slog.New(slog.DiscardHandler),
	}); err != nil {
		w.History.Break("%s: %v", n.name, err)
	}
	s.set.SetInside(true)
	s.open()
	s.link = s.set.Attach((*gateway)(s))
	w.after(50*ms, s.during(s.tick))
	return s
}

// during returns do for as long as the node runs that the station is of.
func (s *station) during(do func()) func() {
	return func() {
		if s.n.up && s.n.station == s {
			do()
		}
	}
}

func (s *station) tick() {
	s.set.Tick()
	s.n.cedeTicked()
	s.step()
	every := int64(50 * ms)
	if s.n.cedes() {
		every = 10 * ms // as often as a partition that is ceded looks at its clients
	}
	s.n.w.after(every, s.during(s.tick))
}

// step has the shards do what there is to do, soon.
func (s *station) step() {
	if s.stepped {
		return
	}
	s.stepped = true
	s.n.w.after(0, s.during(func() {
		s.stepped = false
		s.set.Step()
	}))
}

// roleChanged is what a host does and says then.
func (s *station) roleChanged(r *replica) {
	o := &s.owned[r.id]
	switch r.Role() {
	case partition.Serving:
		if r.cede.ended { // it was Handing, and stays
			s.n.keepPlan(r)
		}
		if o.lost {
			o.lost, o.since = false, r.Table().Epoch
		}
		waiting := o.held
		o.held = nil
		for _, h := range waiting {
			s.n.w.after(0, s.during(func() { s.append(r.id, h) }))
		}
		s.serve(r)
	case partition.Handing:
		return
	case partition.Following, partition.Claiming, partition.Alarmed:
		// What it had sent while another was the owner comes again, without DUP.
		s.n.w.disturbed(func(m *check.Messages) { m.PartitionServed(int(r.id)); m.GivenUp(string(s.n.name)) })
		o.lost = true
		if s.n.w.taken[r.id].by == s {
			s.n.w.taken[r.id].by = nil
		}
		for _, a := range r.waiting {
			a.done(errLost)
		}
		r.waiting = nil
		waiting := o.held
		o.held = nil
		for _, h := range waiting {
			h.done(errNotOwner)
		}
		r.cede = cede{notBefore: r.cede.notBefore}
		s.set.Lose(r.id)
	}
	s.step()
}

// serve has a partition be served here, from now on or again.
func (s *station) serve(r *replica) {
	s.n.w.serves[r.id]++
	s.n.w.takes(r.id, s)
	s.n.w.disturbed(func(m *check.Messages) { m.PartitionServed(int(r.id)) })
	for _, d := range s.n.w.devices {
		if d.part == r.id {
			d.mayEnd()
		}
	}
	s.set.Serve(r.id, r.Table().Epoch)
	s.step()
}

// Self implements shard.Cluster.
func (s *station) Self() string { return string(s.n.name) }

// Owner implements shard.Cluster.
func (s *station) Owner(p partition.ID) (name string, epoch uint64) {
	t := s.n.replicas[p].Table()
	return string(t.Owner), t.Epoch
}

// Brokers implements shard.Cluster.
func (s *station) Brokers() (names []string) {
	for p := range s.n.replicas {
		name, _ := s.Owner(partition.ID(p))
		if name != "" && name != s.Self() && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// Table implements shard.Cluster.
func (s *station) Table() *link.TableUpdate {
	return &link.TableUpdate{Partitions: len(s.n.replicas)}
}

// Cell implements shard.Cluster: a broker that was started has not heard of any record
// before somebody comes, as one whose metadata lags behind.
func (s *station) Cell(of string) shard.Cell {
	if of == tenant && s.n.record.Revision > 0 {
		return s.n.record
	}
	if !s.placed[of] {
		return shard.Cell{}
	}
	return shard.Cell{List: s.n.w.cell(s.n.w.house(of)), Revision: 1}
}

// Place implements shard.Cluster.
func (s *station) Place(of string, _ int) shard.Cell {
	s.placed[of] = true
	return s.Cell(of)
}

// Append implements shard.Cluster.
func (s *station) Append(p partition.ID, epoch uint64, batch []byte, done func(error)) {
	h := held{epoch, batch, func(err error) { done(err); s.step() }}
	s.n.w.after(0, s.during(func() { s.append(p, h) }))
}

func (s *station) append(p partition.ID, h held) {
	r, o := s.n.replicas[p], &s.owned[p]
	switch {
	case h.epoch < o.since:
		h.done(errNotOwner)
	case r.Role() == partition.Handing:
		o.held = append(o.held, h)
	case r.Role() != partition.Serving:
		h.done(errNotOwner)
	default:
		s.n.w.History.Appended++
		r.waiting = append(r.waiting, &appended{n: r.Last().N + 1, done: h.done})
		s.n.step(r, &partition.Event{Kind: partition.Append, Batch: h.batch})
	}
}

// Send implements shard.Cluster.
func (s *station) Send(to string, e *cluster.Enqueue, over cluster.LinkID, done func(cluster.Answer)) (cluster.LinkID, error) {
	return s.lines[s.n.w.node(partition.Broker(to)).at].send(e, over, done)
}

// Ask implements shard.Cluster: nothing here asks.
func (s *station) Ask(string, *link.Query, func(*link.Answer, error)) error { return cluster.ErrDown }

// inlet is where what a peer sends comes in.
func (s *station) inlet(from partition.Broker) *shard.Inlet {
	in := s.inlets[from]
	if in == nil {
		in = s.set.Inlet(string(from))
		s.inlets[from] = in
	}
	return in
}
