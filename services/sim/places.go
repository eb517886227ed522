// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"slices"
	"time"

	"github.com/manormq/manor/services/broker/cluster"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/shard"
)

// places are the partitions of the devices' tenant in worlds in which it goes elsewhere
// with what it has, again and again: its record, which each node hears of in its own time,
// and what the desks of brokers do about it (services/broker/movers.go).
type places struct {
	w *World
	// record is the newest one; its Revision is 0 in other worlds.
	record shard.Cell
	mover  shard.Mover
	// driver is the node that sees to it.
	driver *node
	hand   uint64
	// seen is the revision of the record that the driver has seen since that time.
	seen  uint64
	since int64
	// hasty: membership gives up who is away for a moment, else for givenUp; met is when the
	// driver reached each node last.
	hasty bool
	met   map[*node]int64
	// begun counts the moves.
	begun int
	// asking: answers are on their way.
	asking bool
	// left is the revision by which the tenant began to leave last, and serves those of the world then.
	left   uint64
	serves []int
}

// Times of places, in microseconds.
const (
	placeTick = 50 * ms
	placeAsk  = 1500 * ms
	givenUp   = 3 * second
)

// roam has the tenant go elsewhere from now on, until the faults have ended.
func (p *places) roam() {
	p.record = shard.Cell{List: p.w.cell(p.w.house(tenant)), Revision: 1}
	for _, n := range p.w.nodes {
		n.record = p.record
		if n.up {
			n.station.set.SetCell(tenant, p.record)
		}
	}
	p.w.after(placeTick, p.tick)
}

func (p *places) tick() {
	w := p.w
	switch {
	case p.record.Stage != shard.Settled:
		p.wave()
	case w.faults && w.chance(p.often()):
		p.begin()
	}
	w.after(placeTick, p.tick)
}

// begin has the tenant go to other partitions.
func (p *places) begin() {
	var to []partition.ID
	for id := range partition.ID(p.w.partitions) {
		if p.w.chance(50) {
			to = append(to, id)
		}
	}
	if len(to) == 0 {
		return
	}
	p.leave(to)
}

// leave has the tenant leave for some partitions.
func (p *places) leave(to []partition.ID) {
	p.begun++
	p.left, p.serves = p.record.Revision+1, slices.Clone(p.w.serves)
	p.hasty, p.met = p.w.chance(30), map[*node]int64{}
	p.say(shard.Cell{List: p.record.List, To: to, Stage: shard.Leaving, Revision: p.record.Revision + 1})
	if p.w.rough != nil {
		p.w.crossfire()
	}
}

// arrivedSince reports whether what was at rest under revision, or began to leave by it, is where the
// tenant has arrived by its last move, and nobody else has begun to serve these partitions meanwhile.
func (p *places) arrivedSince(revision uint64, of ...partition.ID) bool {
	if p.left == 0 || revision != p.left && revision+1 != p.left || p.record.Revision != p.left+2 {
		return false
	}
	return !slices.ContainsFunc(of, func(id partition.ID) bool { return p.serves[id] != p.w.serves[id] })
}

// say writes the record.
func (p *places) say(c shard.Cell) {
	p.w.note("place", "", uint64(c.Stage), c.Revision)
	p.w.house(tenant).TenantMoved()
	p.record = c
	for _, n := range p.w.nodes {
		p.tell(n, c)
	}
}

// tell has a node hear of the record, when it is up and another node reaches it.
func (p *places) tell(n *node, c shard.Cell) {
	w := p.w
	w.after(w.between(100, 300*ms), func() {
		switch {
		case n.left > 0, n.record.Revision >= c.Revision, p.record.Revision > c.Revision:
		case !n.up || !w.reached(n):
			p.tell(n, c)
		default:
			n.record = c
			n.station.set.SetCell(tenant, c)
			n.station.step()
		}
	})
}

// forget has a node that has lost its disk hear of the record again.
func (p *places) forget(n *node) {
	if p.record.Revision > 0 {
		n.record = shard.Cell{}
		p.tell(n, p.record)
	}
}

// reached reports whether a node hears of others.
func (w *World) reached(n *node) bool {
	for _, o := range w.nodes {
		if o != n && w.links(o, n) {
			return true
		}
	}
	return false
}

// links reports whether what is sent between two nodes arrives.
func (w *World) links(a, b *node) bool {
	return a == b && a.up || a.up && b.up && w.net.cut[a.at][b.at] == 0 && w.net.cut[b.at][a.at] == 0
}

// wave has the owner of the first partition ask all nodes how far they are.
func (p *places) wave() {
	w, c := p.w, p.record
	n := w.node(w.bus.table(c.List[0]).Owner)
	if p.asking || n == nil || !n.up || n.record.Revision != c.Revision {
		return
	}
	if n != p.driver {
		p.driver, p.mover, p.hand, p.seen, p.met = n, shard.Mover{}, 0, 0, map[*node]int64{}
	}
	if p.seen != c.Revision {
		p.seen, p.since = c.Revision, w.now
	}
	p.asking = true
	run := n.run
	l := &shard.Look{
		Said: map[string]shard.Relocation{}, MayTurn: true,
		// What the driver knows of the table may be old, as its cluster's may.
		Owner: func(id partition.ID) string { return string(n.replicas[id].Table().Owner) },
	}
	over := false
	end := func() {
		if over {
			return
		}
		over, p.asking = true, false
		if !n.up || n.run != run || p.record.Revision != c.Revision {
			return
		}
		l.Waited = time.Duration(w.now-p.since) * time.Microsecond
		o := p.mover.Next(c, l)
		if p.hand = 0; o.Hand {
			p.hand = c.Revision
		}
		if o.Decide != shard.Undecided {
			n.station.set.Decide(tenant, c.Revision, o.Decide)
			n.station.step()
		}
		next := shard.Cell{List: c.List, Revision: c.Revision + 1}
		switch {
		case o.Return:
			w.happens("stayed")
		case o.Advance && c.Stage == shard.Leaving:
			next.List, next.Stage = c.To, shard.Arriving
		case o.Advance:
			w.happens("placed")
		default:
			return
		}
		p.say(next)
	}
	w.after(placeAsk, end)
	for _, o := range w.nodes {
		if o.run == 0 || o.left > 0 {
			continue // it has not joined, or has left
		}
		l.Members = append(l.Members, string(o.name))
		if w.links(n, o) {
			p.met[o] = w.now
		}
		if at, ok := p.met[o]; ok && (at == w.now || !p.hasty && w.now-at < givenUp) {
			l.Alive = append(l.Alive, string(o.name))
		}
		w.after(w.between(100, w.net.delay), func() {
			if !w.links(n, o) {
				return
			}
			at := o.run
			o.station.set.Relocate(tenant, p.hand, func(r shard.Relocation) {
				w.after(w.between(100, w.net.delay), func() {
					if !w.links(n, o) || o.run != at || over {
						return
					}
					if l.Said[string(o.name)] = r; len(l.Said) == len(l.Members) {
						end()
					}
				})
			})
			o.station.step()
		})
	}
}

// Hand implements shard.Cluster.
func (s *station) Hand(to string, b []byte, done func(bool)) error {
	n, w := s.n, s.n.w
	o := w.node(partition.Broker(to))
	if !w.links(n, o) {
		return cluster.ErrDown
	}
	answered := false
	answer := s.during(func() {
		if !answered {
			answered = true
			done(false)
			s.step()
		}
	})
	w.after(silence, answer)
	run := o.run
	w.after(w.between(100, w.net.delay), func() {
		if !w.links(n, o) || o.run != run {
			return
		}
		o.station.set.TakeHanded(b, func(ok bool) {
			w.after(w.between(100, w.net.delay), s.during(func() {
				if w.links(n, o) && o.run == run && !answered {
					answered = true
					done(ok)
					s.step()
				}
			}))
		})
		o.station.step()
	})
	return nil
}
