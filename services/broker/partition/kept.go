// SPDX-License-Identifier: Apache-2.0

package partition

// A start without the table (docs/adr/0027). Each replica keeps the newest entry that
// it has seen on its disk. While the table cannot be read, an owner by a kept entry T of
// epoch E serves under these rules, each of which is needed:
//
//   - its disk knows of no higher epoch than E, and everything follows an entry only
//     when the owner's disk knows of that entry (mayPropose). So what an earlier run did
//     without leaving a trace is at most one change of T, and one that it proposed;
//   - every replica of T, in sync or not, says anew that it knows of no higher epoch
//     either, and has stored E. Whoever follows T as an owner is one of them, and stores
//     a higher epoch before it serves;
//   - it has everything that any of them has. It cannot take another epoch, so what an
//     earlier run sent under E and lost with its own disk's queue would get a second
//     meaning: it is fetched from a follower in sync;
//   - each commit needs every replica of T, since T's successor may name any of them.
//
// With one replica there is nobody to ask: nobody else may follow T either. An entry of
// epoch 1, under which nothing is written, and one that an operator made wait for the
// table.

// confirmWithin is how old, in ms, the answer of a replica may be that confirms an entry.
const confirmWithin = 1000

// startWith takes over the entry that was kept.
func (r *Replica) startWith(t Table, fx *Effects) {
	if t.Epoch < r.state.Epoch {
		r.table.Table = t // it says who may be the owner, and nothing that counts
	} else {
		r.adopt(t, fx)
	}
	r.table.kept = true
}

// claimAsFound makes the replica, which the kept entry calls owner, ready to serve while
// the table is away.
func (r *Replica) claimAsFound(fx *Effects) {
	t := &r.table
	if t.Epoch == 1 || t.Abandoned || r.state.Copy < Suspect || r.durable.state != r.state {
		return
	}
	if !r.confirmed(fx) || !r.hasAll(fx) || r.durable.last != r.log.last {
		return
	}
	if r.state.Copy == Suspect {
		r.setCopy(Whole, fx) // no replica has more
		return
	}
	if r.isInformed(fx) {
		t.asFound = true
		r.serve(fx)
	}
}

// confirmed reports whether all other replicas have said a moment ago that the epoch is
// the highest that they know, and asks those that have not.
func (r *Replica) confirmed(fx *Effects) bool {
	all := true
	for i := range r.owner.peers {
		p := &r.owner.peers[i]
		age := r.clock - p.heardAt
		if p.answered && p.epoch == r.state.Epoch && age < confirmWithin {
			continue
		}
		all = false
		if !p.answered {
			continue // remind asks
		}
		if wait := p.sentAt + confirmWithin/2 - r.clock; wait > 0 {
			fx.wakeIn(wait)
			continue
		}
		r.send(p, &Message{Kind: Probe}, fx)
		fx.wakeIn(confirmWithin / 2)
	}
	return all
}

// hasAll reports whether the replica has what all others have, so that it may write
// under the epoch. It asks a follower in sync for what it lacks.
func (r *Replica) hasAll(fx *Effects) bool {
	all := true
	var best *peer
	for i := range r.owner.peers {
		p := &r.owner.peers[i]
		if p.copy != Fetching && r.log.Has(p.last) {
			continue
		}
		all = false
		if r.table.IsInSync(p.broker) && p.copy >= Suspect && p.last.N > r.log.last.N && (best == nil || best.last.Before(p.last)) {
			best = p
		}
	}
	if best == nil {
		return all
	}
	if wait := best.sentAt + resend - r.clock; best.wantedAt == r.log.last && wait > 0 {
		fx.wakeIn(wait)
		return false
	}
	best.wantedAt = r.log.last
	r.send(best, &Message{Kind: Fetch, Last: r.log.last}, fx)
	fx.wakeIn(resend)
	return false
}

// loadTail reads what an owner lacks.
func (r *Replica) loadTail(m *Message, fx *Effects) {
	if n := r.durable.last.N; r.log.Has(m.Last) && n > m.Last.N {
		fx.Load = append(fx.Load, Load{Peer: r.from.broker, Session: m.Session, From: m.Last.N + 1, To: n + 1, Bytes: piece, Tail: true})
	}
}

// sendTail sends it.
func (r *Replica) sendTail(e *Event, fx *Effects) {
	before := e.Load.From - 1
	if e.Failed || r.role != Following || r.from.broker != e.Load.Peer || r.from.session != e.Load.Session ||
		before < r.log.base.N || before > r.log.last.N {
		return
	}
	fx.Send = append(fx.Send, Envelope{To: e.Load.Peer, Message: Message{
		Kind: Tail, Partition: r.id, Epoch: r.epoch(), Session: e.Load.Session, Run: r.run, Last: r.log.At(before), Records: e.Records,
	}})
}

// takeTail appends what an earlier run of the owner sent to a follower and has lost. It
// was acknowledged to nobody, or it would be here.
func (r *Replica) takeTail(from Broker, m *Message, fx *Effects) {
	p := r.peer(from)
	if p == nil || r.role != Claiming || r.table.fresh || m.Session != p.session || m.Run != p.run ||
		m.Epoch != r.state.Epoch || r.table.Epoch != r.state.Epoch || m.Last != r.log.last {
		return
	}
	for i := range m.Records {
		rec := &m.Records[i]
		if rec.N != r.log.last.N+1 || rec.Epoch < r.log.last.Epoch || rec.Epoch > r.state.Epoch {
			return
		}
		r.put(rec.Epoch, rec.Batch, true, fx)
	}
}
