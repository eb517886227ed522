// SPDX-License-Identifier: Apache-2.0

package partition

// mode is where an owner stands with a peer.
type mode uint8

const (
	// asking: the peer has not said what it has.
	asking mode = iota
	// sending: what it has is a beginning of our history; it gets what follows.
	sending
	// apart: it is not, or what follows is not kept. It needs a snapshot, and must
	// not be in the ISR when its copy is thrown away.
	apart
	// fetching: it is given a snapshot.
	fetching
)

// peer is what the owner knows of another replica.
type peer struct {
	broker Broker
	mode   mode
	// session numbers the conversation, run is the peer's process in it. Answers
	// of another session or run are not counted: what they say may have been lost
	// since.
	session, run uint64
	answered     bool
	// ahead says that it knew of a higher epoch, and took nothing of this one: if
	// that turns out to be ours too, it is asked anew.
	ahead bool
	copy  Copy
	epoch uint64
	last  Last
	// match is up to where the peer has our history on its disk, as said in this
	// session; next is what it will be sent next.
	match, next uint64
	flight      []sent
	inFlight    int
	loading     bool
	// sentAt is when it was last asked something, movedAt when it last got on or
	// had nothing to do.
	sentAt, movedAt int64
	// snapshot, part and piece are what it is given; held is the record from which
	// on the log must be kept for it.
	snapshot uint64
	part     uint32
	piece    Message
	held     uint64
	// heardAt is when it answered last, wantedAt the record behind which it was last
	// asked for what this replica lacks (kept.go).
	heardAt  int64
	wantedAt Last
}

type sent struct {
	n    uint64
	size int
}

func (r *Replica) peer(b Broker) *peer {
	for i := range r.owner.peers {
		if p := &r.owner.peers[i]; p.broker == b {
			return p
		}
	}
	return nil
}

// setPeers has the owner talk to all other replicas of the entry.
func (r *Replica) setPeers(fx *Effects) {
	old := r.owner.peers
	r.owner.peers = make([]peer, 0, r.table.Replicas())
	for _, list := range [2][]Broker{r.table.InSync, r.table.Others} {
		for _, b := range list {
			if b == r.self {
				continue
			}
			p := peer{broker: b}
			for i := range old {
				if old[i].broker == b {
					p = old[i]
				}
			}
			r.owner.peers = append(r.owner.peers, p)
			if p.session == 0 || p.ahead {
				r.open(&r.owner.peers[len(r.owner.peers)-1], fx)
			}
		}
	}
}

// open begins another session with p: nothing that it said before counts.
func (r *Replica) open(p *peer, fx *Effects) {
	r.owner.sessions++
	if p.movedAt == 0 || p.mode == sending && p.match >= r.log.last.N {
		p.movedAt = r.clock // until now it had nothing to do
	}
	*p = peer{broker: p.broker, session: r.owner.sessions, movedAt: p.movedAt, flight: p.flight[:0]}
	r.send(p, &Message{Kind: Probe}, fx)
}

// send addresses m to p.
func (r *Replica) send(p *peer, m *Message, fx *Effects) {
	m.Partition, m.Epoch, m.Session, m.Run = r.id, r.state.Epoch, p.session, p.run
	if m.Kind == Records {
		m.Need = r.need()
	}
	p.sentAt = r.clock
	fx.Send = append(fx.Send, Envelope{To: p.broker, Message: *m})
}

func (r *Replica) linked(b Broker, fx *Effects) {
	if p := r.peer(b); p != nil {
		r.open(p, fx)
	}
	if r.from.broker == b {
		r.answer(fx) // the owner may have asked before there was a link to it
	}
}

// answered takes what a follower says.
func (r *Replica) answered(from Broker, m *Message, fx *Effects) {
	p := r.peer(from)
	if m.Epoch > r.epoch() {
		if p != nil && m.Session == p.session {
			p.ahead = true
		}
		// Somebody may own the partition under that epoch: nothing is committed
		// before the table says that it is this broker.
		r.raise(m.Epoch, fx)
		r.readTable(fx)
		if r.table.silent {
			r.stepDown() // the table, which could say so, is away
		}
		return
	}
	if p == nil || m.Session != p.session {
		return
	}
	if p.run == 0 {
		p.run = m.Run
	}
	if p.run != m.Run || m.Gap {
		r.open(p, fx)
		return
	}
	p.answered, p.copy, p.epoch, p.last, p.heardAt = true, m.Copy, m.Epoch, m.Last, r.clock
	switch p.mode {
	case asking:
		r.place(p, fx)
	case sending:
		r.moved(p, fx)
	case fetching:
		r.pieceWritten(p, m, fx)
	case apart:
	}
}

// place finds what p needs, once it has said what it has and this replica serves.
func (r *Replica) place(p *peer, fx *Effects) {
	if !p.answered || r.role != Serving && r.role != Handing {
		return
	}
	if p.copy == Fetching || !r.log.Has(p.last) {
		p.mode = apart
		return
	}
	p.mode, p.match, p.next, p.movedAt = sending, p.last.N, p.last.N+1, r.clock
	r.pump(p, fx)
	r.assure(p, fx)
}

// moved counts what p has written.
func (r *Replica) moved(p *peer, fx *Effects) {
	if !r.log.Has(p.last) {
		r.open(p, fx)
		return
	}
	if p.last.N > p.match {
		// It may be past next: what it was sent in an earlier session was still
		// being written when this one began.
		p.match, p.next, p.movedAt = p.last.N, max(p.next, p.last.N+1), r.clock
		n := 0
		for n < len(p.flight) && p.flight[n].n <= p.match {
			p.inFlight -= p.flight[n].size
			n++
		}
		p.flight = append(p.flight[:0], p.flight[n:]...)
	}
	r.pump(p, fx)
	if p.match+1 == p.next {
		r.assure(p, fx)
	}
}

// assure tells a peer whose copy is not whole what makes it so.
func (r *Replica) assure(p *peer, fx *Effects) {
	if p.copy != Whole && p.match >= r.need() {
		r.send(p, &Message{Kind: Records, Last: r.log.At(p.match)}, fx)
	}
}

// sendRecords sends p the records that follow what it was sent.
func (r *Replica) sendRecords(p *peer, records []Record, fx *Effects) {
	size := 0
	for i := range records {
		size += len(records[i].Batch)
	}
	m := Message{Kind: Records, Last: r.log.At(p.next - 1), Records: records}
	p.next = records[len(records)-1].N + 1
	p.inFlight += size
	p.flight = append(p.flight, sent{p.next - 1, size})
	r.send(p, &m, fx)
}

func (r *Replica) pumpAll(fx *Effects) {
	for i := range r.owner.peers {
		r.pump(&r.owner.peers[i], fx)
	}
}

// pump has p get on: it loads the records that p was not sent when they were
// new, or begins its snapshot.
func (r *Replica) pump(p *peer, fx *Effects) {
	switch {
	case p.loading:
	case p.mode == sending && p.inFlight < window && p.next <= r.durable.last.N:
		p.loading = true
		fx.Load = append(fx.Load, Load{Peer: p.broker, Session: p.session, From: p.next, To: r.durable.last.N + 1, Bytes: piece})
	case p.mode == apart && !r.requires(p.broker) && r.mayCommit():
		p.mode, p.snapshot, p.held = fetching, p.session, r.durable.last.N
		r.nextPiece(p, fx)
	}
}

func (r *Replica) nextPiece(p *peer, fx *Effects) {
	p.part++
	p.loading, p.piece = true, Message{}
	fx.Load = append(fx.Load, Load{Peer: p.broker, Session: p.session, Snapshot: p.snapshot, Part: p.part, Bytes: snapshotPiece})
}

// loaded sends what was loaded.
func (r *Replica) loaded(e *Event, fx *Effects) {
	if e.Load.Tail {
		r.sendTail(e, fx)
		return
	}
	p := r.peer(e.Load.Peer)
	if p == nil || p.session != e.Load.Session || !p.loading {
		return
	}
	p.loading = false
	if p.mode == fetching && !e.Failed {
		p.movedAt = r.clock
		p.piece = Message{Kind: Piece, Snapshot: p.snapshot, Part: p.part, Batch: e.Batch, Done: e.Done, Last: e.Last}
		m := p.piece
		r.send(p, &m, fx)
		return
	}
	if e.Failed || p.next-1 < r.log.base.N {
		r.open(p, fx)
		return
	}
	if len(e.Records) > 0 && e.Records[0].N == p.next {
		r.sendRecords(p, e.Records, fx)
	}
	r.pump(p, fx)
}

// pieceWritten goes on with a snapshot.
func (r *Replica) pieceWritten(p *peer, m *Message, fx *Effects) {
	if p.loading || m.Snapshot != p.snapshot || m.Part != p.part {
		return
	}
	p.movedAt = r.clock
	if p.piece.Done {
		r.open(p, fx)
		return
	}
	r.nextPiece(p, fx)
}

// remind repeats what p has not answered.
func (r *Replica) remind(p *peer, fx *Effects) {
	late := p.mode == sending && (p.match+1 < p.next || p.copy != Whole && p.match >= r.need())
	// Who is to join the ISR says anew what it has: it may have been away, and lost it.
	unheard := p.mode == sending && !r.table.IsInSync(p.broker) && !r.heard(p)
	owes := late || unheard || p.mode == asking && !p.answered || p.mode == fetching && !p.loading
	if !owes {
		return
	}
	if wait := p.sentAt + resend - r.clock; wait > 0 {
		fx.wakeIn(wait)
		return
	}
	switch {
	case late:
		r.open(p, fx)
	case p.mode == fetching:
		m := p.piece
		r.send(p, &m, fx)
	default:
		r.send(p, &Message{Kind: Probe}, fx)
	}
	fx.wakeIn(resend)
}

// heard reports whether p has answered lately.
func (r *Replica) heard(p *peer) bool { return r.clock-p.heardAt < peerOut/2 }

// stuck reports whether p has left records unanswered for too long.
func (r *Replica) stuck(p *peer) bool {
	return p.match < r.log.last.N && r.clock-p.movedAt >= peerStuck
}

// keep is the newest record that the log may forget.
func (r *Replica) keep() uint64 {
	n := r.owner.committed
	for i := range r.owner.peers {
		if p := &r.owner.peers[i]; p.mode == fetching && r.log.bytes < 16*r.logKept {
			n = min(n, p.held)
		}
	}
	return n
}
