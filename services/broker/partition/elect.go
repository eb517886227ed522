// SPDX-License-Identifier: Apache-2.0

package partition

import "slices"

// elect has a member of the ISR take the place of an owner that is dead. That it
// may be wrong about that costs an interruption and no message.
func (r *Replica) elect(fx *Effects) {
	t := &r.table
	if r.role != Following || t.Owner == r.self || !t.IsInSync(r.self) || r.state.Copy != Whole {
		return
	}
	if up := r.peers.BusUp(); up < busSettled {
		fx.wakeIn(busSettled - max(up, 0))
		return
	}
	wait := int64(ownerDead + t.rank(r.self)*rankStep)
	if age := min(r.peers.BeatAge(t.Owner), r.peers.Silence(t.Owner)); age < wait {
		fx.wakeIn(wait - age)
		return
	}
	fx.wakeIn(rankStep)
	if !r.isInformed(fx) || !r.mayPropose(fx) {
		return
	}
	// The owner has all that was committed, and so has the rest of the ISR: it is
	// not needed, and it cannot answer.
	e := Entry{Owner: r.self, Others: append(slices.Clone(t.Others), t.Owner)}
	for _, b := range t.InSync {
		if b != t.Owner {
			e.InSync = append(e.InSync, b)
		}
	}
	r.propose(e, fx)
}

// claim makes the replica, which the table calls owner, ready to serve.
func (r *Replica) claim(fx *Effects) {
	t := &r.table
	if r.state.Copy != Whole && !r.judge(fx) {
		return
	}
	// Before the table says that the partition was begun, or taken up after it was given up,
	// the disk must say that this copy is whole: nobody else's is.
	if r.durable.state != r.state {
		return
	}
	// An earlier run of this process may have appended under this epoch, or have
	// proposals on their way at this revision: it gets another. A single replica
	// has neither followers nor anybody to propose.
	again := t.Revision <= t.floor && t.Replicas() > 1
	if again || t.Epoch == 1 || t.Abandoned {
		if r.mayPropose(fx) {
			r.propose(Entry{Owner: r.self, InSync: t.InSync, Others: t.Others}, fx)
		}
		return
	}
	for i := range r.owner.peers {
		p := &r.owner.peers[i]
		stored := p.answered && p.epoch >= r.state.Epoch
		if !t.IsInSync(p.broker) || stored || r.peers.Silence(p.broker) >= reachWait {
			continue
		}
		if wait := r.owner.claimedAt + reachWait - r.clock; wait > 0 {
			fx.wakeIn(wait)
			return
		}
	}
	if r.isInformed(fx) {
		r.serve(fx)
	}
}

// isInformed reports whether the broker is, and is asked again if not.
func (r *Replica) isInformed(fx *Effects) bool {
	if r.informed() {
		return true
	}
	fx.wakeIn(informedRead)
	return false
}

// serve has an owner that is ready begin.
func (r *Replica) serve(fx *Effects) {
	r.role, r.owner.claimed, r.owner.notBefore = Serving, r.log.last.N, r.clock+handPause
	for i := range r.owner.peers {
		r.place(&r.owner.peers[i], fx)
	}
}

// judge decides what a copy that is not whole is worth, on a broker that the table
// calls owner. It reports whether it became whole. Where another member of the ISR
// has a better one, that one becomes the owner.
func (r *Replica) judge(fx *Effects) bool {
	t := &r.table
	if t.Abandoned || t.Epoch == 1 && r.state.Copy == Empty {
		if r.state.Copy == Fetching {
			r.write(Write{Kind: Wipe}, fx) // part of a snapshot is worth nothing
		}
		r.setCopy(Whole, fx)
		return true
	}
	var best *peer
	for i := range r.owner.peers {
		p := &r.owner.peers[i]
		switch {
		case !t.IsInSync(p.broker):
		case !p.answered:
			return false // it may be whole
		case p.copy == Whole:
			best = p
		case p.copy == Suspect && (best == nil || best.copy == Suspect && best.last.Before(p.last)):
			best = p
		}
	}
	switch {
	case best != nil && (best.copy == Whole || r.state.Copy != Suspect || r.log.last.Before(best.last)):
		if r.mayPropose(fx) {
			r.propose(Entry{Owner: best.broker, InSync: t.InSync, Others: t.Others}, fx)
		}
	case r.state.Copy == Suspect:
		r.setCopy(Whole, fx)
		return true
	case !r.owner.hopeless:
		r.owner.hopeless = true
		fx.Alarm = "no replica in sync has a copy: the partition is unavailable until a disk returns or it is abandoned"
	}
	return false
}
