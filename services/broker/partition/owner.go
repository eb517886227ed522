// SPDX-License-Identifier: Apache-2.0

package partition

import "slices"

// owning is what an owner knows.
type owning struct {
	// sessions is the last number given to one; it never repeats.
	sessions uint64
	peers    []peer
	// committed is what may be acknowledged; claimed is what the owner had when it
	// began to serve, so all that an earlier one may have acknowledged.
	committed, claimed uint64
	claimedAt          int64
	// wanted and draining are the controller's plan.
	wanted   []Broker
	draining bool
	// handingAt is when Handing began, notBefore when it may begin again: some time
	// after the claim too, since two controllers may see different brokers.
	handingAt, notBefore int64
	// tendAt is when the entry is looked at next, if only batches come and go.
	tendAt int64
	// hopeless says that the alarm about it was given.
	hopeless bool
}

// append takes the batch of a turn.
func (r *Replica) append(batch []byte, fx *Effects) {
	if r.role != Serving && r.role != Handing {
		return
	}
	last := r.put(r.table.Epoch, batch, r.table.Replicas() > 1, fx)
	for i := range r.owner.peers {
		p := &r.owner.peers[i]
		switch {
		case p.mode == sending && p.match+1 == last.N:
			p.movedAt = r.clock // it had nothing to do until now
			fallthrough
		case p.mode == sending:
			if !p.loading && p.next == last.N && p.inFlight < window {
				r.sendRecords(p, []Record{{Last: last, Batch: batch}}, fx)
			}
		}
	}
}

// stepDown ends what an owner does.
func (r *Replica) stepDown() {
	if r.role != Following {
		r.role = Following
		// The plan goes too: when it is owner again, it may be wanted elsewhere.
		r.owner = owning{sessions: r.owner.sessions}
	}
}

// own does what an owner must, after an event of that kind.
func (r *Replica) own(kind EventKind, fx *Effects) {
	if r.role == Alarmed {
		if r.clock-r.table.askedAt >= alarmedRead {
			r.readTable(fx)
		}
		fx.wakeIn(alarmedRead)
		return
	}
	if r.table.Owner != r.self {
		return
	}
	if !r.table.fresh || r.table.Epoch < r.state.Epoch {
		r.readTable(fx)
		if r.table.Epoch < r.state.Epoch || !r.table.kept || !r.table.silent {
			return
		}
	}
	if r.role == Following {
		r.role, r.owner.claimedAt, r.owner.hopeless = Claiming, r.clock, false
		r.from = following{}
		r.setPeers(fx)
	}
	switch {
	case r.role == Claiming && r.table.fresh:
		r.claim(fx)
	case r.role == Claiming:
		r.claimAsFound(fx)
	}
	for i := range r.owner.peers {
		p := &r.owner.peers[i]
		r.remind(p, fx)
		r.pump(p, fx)
	}
	if r.role == Serving || r.role == Handing {
		r.tend(kind, fx)
	}
}

// tend changes the entry where the replicas or the plan ask for it.
func (r *Replica) tend(kind EventKind, fx *Effects) {
	traffic := kind == Append || kind == Written || kind == Received
	still := r.role == Serving && len(r.table.Others) == 0 && len(r.table.pending) == 0
	if len(r.owner.peers) > 0 {
		fx.wakeIn(max(r.owner.tendAt-r.clock, 1))
	}
	if traffic && still && r.clock < r.owner.tendAt {
		return
	}
	r.owner.tendAt = r.clock + tendEvery
	if len(r.owner.peers) > 0 {
		fx.wakeIn(tendEvery)
	}
	next := r.next()
	r.hand(&next)
	// What is pending without an answer holds up commits until the revision moves, and
	// so does what an earlier run may have proposed.
	if next.same(&r.table.Entry) && len(r.table.pending) == 0 && !r.table.asFound {
		return
	}
	if r.mayPropose(fx) {
		r.propose(next, fx)
	}
}

// next is the entry as it should be.
func (r *Replica) next() Entry {
	o := &r.owner
	e := Entry{Owner: r.self, Draining: o.draining}
	settled := true // everyone wanted is in the ISR
	for _, b := range o.wanted {
		settled = settled && r.table.IsInSync(b) && (b == r.self || r.stays(b))
	}
	wanted := func(b Broker) bool { return len(o.wanted) == 0 || b == r.self || slices.Contains(o.wanted, b) }
	for _, b := range r.table.InSync {
		switch {
		case b == r.self, r.stays(b) && (wanted(b) || !settled):
			e.InSync = append(e.InSync, b)
		case wanted(b):
			e.Others = append(e.Others, b)
		}
	}
	for _, b := range r.table.Others {
		switch {
		case !wanted(b):
		case r.joins(b):
			e.InSync = append(e.InSync, b)
		default:
			e.Others = append(e.Others, b)
		}
	}
	for _, b := range o.wanted {
		if !e.Holds(b) {
			e.Others = append(e.Others, b)
		}
	}
	return e
}

// stays reports whether a member of the ISR answers as one should.
func (r *Replica) stays(b Broker) bool {
	p := r.peer(b)
	return p != nil && p.mode != apart && p.mode != fetching && r.peers.Silence(b) < peerOut && !r.stuck(p)
}

// joins reports whether a follower can be in the ISR: it says that it has all that may have
// been acknowledged, and that it is whole. What it said before it was silent may be of a
// process that is gone, with its disk.
func (r *Replica) joins(b Broker) bool {
	p := r.peer(b)
	return p != nil && p.mode == sending && p.copy == Whole && p.match >= r.need() && r.heard(p) && r.peers.Silence(b) < peerOut/2 && !r.stuck(p)
}

// MayHand reports whether the owner would hand over to a broker now, if the plan were so,
// and propose it at once.
func (r *Replica) MayHand(now int64, to Broker) bool {
	r.clock = max(r.clock, now)
	t := &r.table
	return r.role == Serving && to != r.self && t.IsInSync(to) && r.stays(to) && r.ready(r.peer(to)) &&
		t.fresh && !t.inFlight && !t.reading && (t.proposedAt == 0 || r.clock-t.proposedAt >= repropose)
}

// ready reports whether a hand-over to a member of the ISR may begin.
func (r *Replica) ready(to *peer) bool {
	return to.mode == sending && to.copy == Whole && r.clock >= r.owner.notBefore && len(r.table.pending) == 0 &&
		r.peers.BusUp() >= 0 && !to.loading && to.inFlight < window/4 && r.mayCommit()
}

// hand moves the ownership to where the plan has it, once that replica has
// everything. Appends stand still meanwhile.
func (r *Replica) hand(next *Entry) {
	o := &r.owner
	var to *peer
	if len(o.wanted) > 0 && o.wanted[0] != r.self && r.table.IsInSync(o.wanted[0]) && next.IsInSync(o.wanted[0]) {
		if p := r.peer(o.wanted[0]); p.mode == sending && p.copy == Whole {
			to = p
		}
	}
	switch {
	case r.role == Serving && to != nil && r.ready(to):
		r.role, o.handingAt = Handing, r.clock
	case r.role == Handing && (to == nil || r.clock-o.handingAt >= handOver):
		to = nil
		r.retain()
	}
	if r.role == Handing && to != nil && to.match == r.log.last.N && r.durable.last == r.log.last {
		next.Owner = to.broker
	}
}

// retain ends a hand-over that has come to nothing, once no proposal is left by which
// another broker may be the owner: appends go on here.
func (r *Replica) retain() {
	if r.role == Handing && len(r.table.pending) == 0 {
		r.role, r.owner.notBefore = Serving, r.clock+handPause
	}
}
