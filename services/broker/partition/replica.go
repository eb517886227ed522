// SPDX-License-Identifier: Apache-2.0

package partition

// Durations, in milliseconds.
const (
	// ownerDead is for how long both the heartbeat of the owner and the link to
	// it are still before a member of the ISR proposes itself; the next in rank
	// waits rankStep longer.
	ownerDead = 3000
	rankStep  = 500
	// busSettled is for how long the bus must be back before a heartbeat that
	// stands still says anything.
	busSettled = 5000
	// peerOut is for how long a link is silent before the owner drops the peer
	// from the ISR; peerStuck is how long it may leave records unanswered.
	peerOut   = 3000
	peerStuck = 5000
	// reachWait is how long a new owner waits for the others of the ISR to store
	// its epoch: those that do not answer in it are not reached.
	reachWait = 1000
	// alarmedRead is how often a replica that stands still looks at the table.
	alarmedRead = 5000
	// resend is after what time without an answer a peer is asked again, reread
	// the table, repropose a change.
	resend    = 1000
	reread    = 500
	repropose = 200
	// tendEvery is how often an owner looks whether its peers are what they should
	// be, while nothing but batches comes and goes.
	tendEvery = 500
	// handOver bounds how long appends stand still for a planned move; after one
	// that failed the next waits handPause.
	handOver  = 2000
	handPause = 10000
	// informedRead is how often a replica that could go on looks whether its broker is
	// informed.
	informedRead = 100
)

// Sizes, in bytes.
const (
	// window is how much is sent to a peer without an answer.
	window = 1 << 20
	// piece is how much is loaded at once: of records, and of a snapshot, whose pieces
	// are written while others wait for their commits.
	piece         = 256 << 10
	snapshotPiece = 64 << 10
)

// Peers is what a broker knows of the others, by its own clock. All ages are in
// milliseconds.
type Peers interface {
	// BeatAge is for how long the heartbeat of b stands still.
	BeatAge(b Broker) int64
	// Silence is for how long nothing came over the link from b.
	Silence(b Broker) int64
	// BusUp is for how long the bus has been there without a break, negative
	// while it is away.
	BusUp() int64
}

// EventKind is what happens to a replica.
type EventKind uint8

// The events.
const (
	// Start: the process has read what is stored. It comes once and first.
	Start EventKind = iota + 1
	// Append: the owner's turn made a batch. Only while Role is Serving.
	Append
	// Written: the writes up to Ticket are done.
	Written
	// Received: a message came from Peer.
	Received
	// TableSeen: the watch told of an entry, perhaps late, in order.
	TableSeen
	// TableRead answers ReadTable: the entry was so at some moment after it was
	// asked.
	TableRead
	// Proposed answers Propose.
	Proposed
	// Linked: there is a new link to Peer; what was on the old one is lost.
	Linked
	// Loaded answers Load.
	Loaded
	// Plan: the controller of this broker says where the partition should be.
	Plan
	// Tick: some time has passed.
	Tick
)

// Event is one event. Which fields are read depends on Kind.
type Event struct {
	Kind    EventKind
	Stored  *Stored // Start
	Batch   []byte  // Append: kept until it is written and sent
	Ticket  uint64  // Written
	Peer    Broker  // Received, Linked
	Message Message // Received: its batches are kept until they are written
	// Table is the entry, of which Revision 0 says that there is none (TableSeen,
	// TableRead); what the proposal made of it (Proposed and Won).
	Table Table
	// Failed says that the bus did not answer (TableRead), or that what was asked
	// for is not there any more (Loaded).
	Failed  bool
	At      uint64   // Proposed: the proposal's At
	Outcome Outcome  // Proposed
	Load    Load     // Loaded: what was asked
	Records []Record // Loaded
	// Done and Last mark the last piece of a snapshot, of which Batch is the
	// content (Loaded).
	Done bool
	Last Last
	// Wanted are the brokers that should hold the partition, the owner first
	// (Plan); empty leaves them as they are.
	Wanted   []Broker
	Draining bool // Plan
}

// Stored is what the disk has of a partition.
type Stored struct {
	// State is the zero State if none is stored.
	State State
	// Log is built by Add over the records that are there, from NewLog of the
	// record before the first.
	Log Log
	// Table is the newest entry that was seen before, the zero Table if none is kept.
	Table Table
	// PowerLost says that writes that were done may be gone: the machine was
	// started anew since they were, and Sync allows it. It is said at every start
	// until the first Written of one that was told so.
	PowerLost bool
}

// Replica is one replica of a partition: owner or follower. It is owned by its
// shard and not safe for concurrent use.
type Replica struct {
	id    ID
	self  Broker
	run   uint64
	peers Peers
	// informed is Config.Informed.
	informed func() bool
	logKept  int

	// clock is the sum of the steps that now made forwards.
	clock, now int64

	role  Role
	state State
	log   Log
	// durable is what is known to be on the disk; writing is what each write
	// makes of it.
	durable durable
	writing []durable
	ticket  uint64

	table tableCopy
	owner owning
	from  following
}

// durable is what the disk has once the writes up to ticket are done.
type durable struct {
	ticket uint64
	state  State
	last   Last
	part   uint32
}

// Config is what a Replica is made of.
type Config struct {
	ID   ID
	Self Broker
	// Run is a higher number at each start of the process, below 2^40 and not 0, also
	// when the disk was lost: followers take no session that is older than one they
	// know of the same broker.
	Run   uint64
	Peers Peers
	// LogKept is how much of the log is kept for catching up, in bytes; 0 is the
	// package's LogKept.
	LogKept int
	// Informed reports whether this broker knows what the others do of all that is not in a
	// partition: where messages are wanted, and where tenants live. Until it does it
	// becomes no owner, and serves nothing: what is published to who does not know a
	// subscription would be acknowledged and lost. nil is always.
	Informed func() bool
}

// New makes a replica, to be given Start.
func New(c Config) *Replica {
	if c.LogKept == 0 {
		c.LogKept = LogKept
	}
	if c.Informed == nil {
		c.Informed = func() bool { return true }
	}
	return &Replica{
		id: c.ID, self: c.Self, run: c.Run, peers: c.Peers, informed: c.Informed, logKept: c.LogKept,
		log: NewLog(Last{}), owner: owning{sessions: c.Run << 20},
	}
}

// Role is what the replica does now.
func (r *Replica) Role() Role { return r.role }

// Last is the newest record that the replica has, written or not.
func (r *Replica) Last() Last { return r.log.last }

// Copy is what the replica's copy is worth.
func (r *Replica) Copy() Copy { return r.state.Copy }

// Epoch is the highest epoch that the replica knows.
func (r *Replica) Epoch() uint64 { return r.state.Epoch }

// Table is the newest entry that the replica has seen, the zero Table if none.
func (r *Replica) Table() Table { return r.table.Table }

// Step does what e asks for. now is in milliseconds of any clock: only its steps
// forwards count, and safety rests on none of them.
func (r *Replica) Step(now int64, e *Event, fx *Effects) {
	if r.now != 0 && now > r.now {
		r.clock += now - r.now
	}
	r.now = now
	role := r.role
	switch e.Kind {
	case Start:
		r.start(e.Stored, fx)
	case Append:
		r.append(e.Batch, fx)
	case Written:
		r.written(e.Ticket, fx)
	case Received:
		r.received(e.Peer, &e.Message, fx)
	case TableSeen:
		r.seen(e.Table, fx)
	case TableRead:
		r.read(e.Table, e.Failed, fx)
	case Proposed:
		r.proposed(e, fx)
	case Linked:
		r.linked(e.Peer, fx)
	case Loaded:
		r.loaded(e, fx)
	case Plan:
		r.owner.wanted, r.owner.draining = e.Wanted, e.Draining
	case Tick:
	}
	if r.table.wanted {
		r.readTable(fx)
	}
	r.own(e.Kind, fx)
	r.elect(fx)
	r.commit(fx)
	r.trim(fx)
	fx.RoleChanged = fx.RoleChanged || role != r.role
}

// start takes over what is stored.
func (r *Replica) start(s *Stored, fx *Effects) {
	r.state, r.log = s.State, s.Log
	if r.state.Copy < Suspect {
		r.log = NewLog(Last{})
	}
	r.durable = durable{state: r.state, last: r.log.last}
	if r.state.Copy == Empty && s.Log.last != r.log.last {
		r.write(Write{Kind: Wipe}, fx) // which a crash had cut short
	}
	if s.PowerLost && r.state.Copy == Whole {
		r.setCopy(Suspect, fx)
	}
	if s.Table.Revision != 0 {
		r.startWith(s.Table, fx)
	}
	r.readTable(fx)
}

// write gives w to the disk.
func (r *Replica) write(w Write, fx *Effects) {
	r.ticket++
	w.Ticket = r.ticket
	fx.Write = append(fx.Write, w)
	r.writing = append(r.writing, durable{ticket: w.Ticket, state: r.state, last: r.log.last, part: r.from.part})
}

func (r *Replica) setCopy(c Copy, fx *Effects) {
	if r.state.Copy != c {
		r.state.Copy = c
		r.write(Write{Kind: PutState, State: r.state}, fx)
	}
}

// raise stores a higher epoch: from now on no owner of a lower one is answered.
func (r *Replica) raise(epoch uint64, fx *Effects) {
	if epoch > r.state.Epoch {
		r.state.Epoch = epoch
		r.write(Write{Kind: PutState, State: r.state}, fx)
	}
}

// put appends a record and gives it to the disk.
func (r *Replica) put(epoch uint64, batch []byte, keep bool, fx *Effects) Last {
	size := -1
	if keep {
		size = len(batch)
	}
	last := r.log.Add(epoch, size, segmentBytes(r.logKept))
	r.write(Write{Kind: PutRecord, Record: Record{Last: last, Batch: batch}, Log: keep}, fx)
	return last
}

func (r *Replica) written(ticket uint64, fx *Effects) {
	n := 0
	for n < len(r.writing) && r.writing[n].ticket <= ticket {
		r.durable = r.writing[n]
		n++
	}
	r.writing = append(r.writing[:0], r.writing[n:]...)
	if n > 0 {
		r.answer(fx)
		r.pumpAll(fx)
	}
}

func (r *Replica) received(from Broker, m *Message, fx *Effects) {
	switch m.Kind {
	case Answer:
		r.answered(from, m, fx)
	case Tail:
		r.takeTail(from, m, fx)
	case Probe, Records, Piece, Fetch:
		r.followed(from, m, fx)
	}
}

// trim forgets what of the log is more than should be kept.
func (r *Replica) trim(fx *Effects) {
	if r.log.bytes < r.logKept+segmentBytes(r.logKept) {
		return
	}
	floor := r.log.last.N
	if r.role == Serving || r.role == Handing {
		floor = r.keep()
	}
	if r.log.Trim(r.logKept, floor) {
		r.write(Write{Kind: TrimLog, To: r.log.base.N + 1}, fx)
	}
}
