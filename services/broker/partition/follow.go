// SPDX-License-Identifier: Apache-2.0

package partition

// following is what a follower knows of its owner.
type following struct {
	broker  Broker
	session uint64
	// need is what the owner says that a copy must have to be whole; assured that
	// it said so to this run, so that it counts on nothing that an earlier run had.
	need    uint64
	assured bool
	// opened says that the session was answered: from then on the owner knows of all
	// that was taken in earlier ones.
	opened bool
	// snapshot and part are what is being fetched, and the last piece of it.
	snapshot uint64
	part     uint32
}

// followed takes a message of an owner.
func (r *Replica) followed(from Broker, m *Message, fx *Effects) {
	switch {
	case m.Epoch < r.epoch():
		// It may be the owner of this epoch too, and not know yet that its change was
		// carried out: then it must send again what is not taken here.
		r.say(from, m.Session, true, fx)
		return
	case r.role == Alarmed:
		return
	case m.Epoch == r.table.Epoch && r.table.Owner != from:
		return // not its owner, whatever it believes
	case r.state == State{} && !r.table.fresh:
		// The disk may have been lost, and with it the higher epoch of another
		// owner: answering this one could commit what that one does not have.
		r.readTable(fx)
		return
	}
	r.raise(m.Epoch, fx)
	if m.Kind == Probe {
		if r.from.broker != from || r.from.session < m.Session {
			r.from = following{broker: from, session: m.Session}
		}
		if r.from.session == m.Session {
			r.answer(fx)
		}
		return
	}
	if r.role != Following {
		return // an owner takes nothing before the table says that it is none
	}
	// What was sent to an earlier run may be older than what this one was asked.
	ok := r.from.broker == from && r.from.session == m.Session && m.Run == r.run
	switch {
	case !ok:
	case m.Kind == Records:
		ok = r.take(m, fx)
	case m.Kind == Piece:
		ok = r.takePiece(m, fx)
	default:
		r.loadTail(m, fx)
	}
	if !ok {
		r.say(from, m.Session, true, fx)
	}
}

// take writes the records of m that are new. It reports whether they follow on
// what is there.
func (r *Replica) take(m *Message, fx *Effects) bool {
	prev := m.Last
	if r.state.Copy == Fetching || prev.N > r.log.last.N || prev.N == r.log.last.N && prev != r.log.last {
		return false
	}
	for i := range m.Records {
		rec := &m.Records[i]
		if rec.N != prev.N+1 || rec.N == r.log.last.N && rec.Last != r.log.last {
			return false
		}
		prev = rec.Last
		if rec.N == r.log.last.N+1 {
			r.put(rec.Epoch, rec.Batch, true, fx)
		}
	}
	r.from.assured, r.from.need = true, m.Need
	if r.durable.last == r.log.last {
		r.answer(fx) // nothing is being written that would
	}
	return true
}

// takePiece writes a piece of a snapshot. It reports whether it is the next, or
// was there before.
func (r *Replica) takePiece(m *Message, fx *Effects) bool {
	f := &r.from
	if m.Part == 1 && f.snapshot != m.Snapshot {
		f.snapshot = m.Snapshot
		r.wipe(Fetching, fx)
	}
	if m.Snapshot != f.snapshot || m.Part > f.part+1 {
		return false
	}
	if m.Part <= f.part {
		r.answer(fx)
		return true
	}
	f.part++
	w := Write{Kind: PutPiece, Batch: m.Batch, Done: m.Done}
	if m.Done {
		w.Record.Last = m.Last
		r.log = NewLog(m.Last)
	}
	r.write(w, fx)
	if m.Done {
		r.setCopy(Suspect, fx)
	}
	return true
}

// answer tells the owner what is on the disk, once the epoch is, under which it
// asks.
func (r *Replica) answer(fx *Effects) {
	f := &r.from
	if f.session == 0 || r.role != Following || r.durable.state.Epoch < r.state.Epoch {
		return
	}
	if !f.opened && r.durable.last != r.log.last {
		return // what is being written is older than the session: Written answers
	}
	f.opened = true
	if f.assured && r.state.Copy != Whole && r.state.Copy != Fetching && r.durable.last.N >= f.need {
		r.setCopy(Whole, fx)
		return // and say so when it is written
	}
	r.say(f.broker, f.session, false, fx)
}

// say sends an Answer. Of what the copy is worth and what the disk says that it is,
// the worse counts.
func (r *Replica) say(to Broker, session uint64, gap bool, fx *Effects) {
	fx.Send = append(fx.Send, Envelope{To: to, Message: Message{
		Kind: Answer, Partition: r.id, Epoch: r.epoch(), Session: session, Run: r.run, Gap: gap,
		Last: r.durable.last, Copy: min(r.state.Copy, r.durable.state.Copy), Snapshot: r.from.snapshot, Part: r.durable.part,
	}})
}
