// SPDX-License-Identifier: Apache-2.0

package partition

import "testing"

// started is a replica that was started with a kept entry and cannot read the table.
func started(t testing.TB, s *Stored) *bench {
	b := newBench(t, s)
	b.peers.up = -1
	b.step(Event{Kind: TableRead, Failed: true})
	b.written()
	return b
}

func stored(e Entry, last Last) *Stored {
	log := NewLog(Last{})
	for n := range last.N {
		log.Add(last.Epoch, int(n), 1<<20)
	}
	return &Stored{State: State{Epoch: e.Epoch, Copy: Whole}, Log: log, Table: Table{Entry: e, Revision: 20}}
}

// says has a peer answer, in the session and with the run that the replica expects.
func (b *bench) says(from Broker, epoch uint64, last Last) *Effects {
	p := b.peer(from)
	return b.step(Event{Kind: Received, Peer: from, Message: Message{
		Kind: Answer, Partition: 1, Epoch: epoch, Session: p.session, Run: 3, Last: last, Copy: Whole,
	}})
}

var (
	paired = Entry{Epoch: 4, Owner: "a", InSync: []Broker{"a", "b"}}
	joined = Entry{Epoch: 4, Owner: "a", InSync: []Broker{"a", "b"}, Others: []Broker{"c"}}
)

// A single replica serves by the entry that it kept, once the table is known to be away;
// when the table is back nothing changes.
func TestKept_Alone(t *testing.T) {
	b := newBench(t, stored(alone, Last{4, 3}))
	b.written()
	b.wantRole(Following) // it may be that the table says more
	b.step(Event{Kind: TableRead, Failed: true})
	b.written()
	b.wantRole(Serving)
	b.step(Event{Kind: Append})
	if fx := b.written(); fx.Committed != 4 {
		t.Errorf("committed %d, expected 4", fx.Committed)
	}
	b.peers.up = 0
	b.read(alone, 20)
	b.wantRole(Serving)
}

// What was moved away is not served: the disk knows of the epoch of the first step of a
// move before there is a second.
func TestKept_LowerEpoch(t *testing.T) {
	s := stored(alone, Last{4, 3})
	s.State.Epoch = 5
	b := started(t, s)
	b.wantRole(Following)
	if b.Table().Owner != "a" {
		t.Errorf("who may be the owner is not known: %+v", b.Table())
	}
}

// Nothing is served under an epoch in which nothing is written, or by the mark of an
// operator, or with a copy of which not all is there.
func TestKept_Waits(t *testing.T) {
	first, given := alone, alone
	first.Epoch, given.Abandoned = 1, true
	for _, e := range []Entry{first, given} {
		started(t, stored(e, Last{4, 3})).wantRole(Claiming)
	}
	s := stored(alone, Last{4, 3})
	s.State.Copy = Fetching
	started(t, s).wantRole(Claiming)
	// After a power cut the only copy is the best one.
	s = stored(alone, Last{4, 3})
	s.State.Copy = Suspect
	b := started(t, s)
	b.written()
	b.wantRole(Serving)
}

// With others an owner serves when each of them says that it knows of no higher epoch, a
// moment ago, and commits what all of them have, in sync or not.
func TestKept_Confirmed(t *testing.T) {
	b := started(t, stored(joined, Last{4, 3}))
	b.wantRole(Claiming)
	b.says("b", 4, Last{4, 3})
	b.wantRole(Claiming)
	b.now += confirmWithin
	if fx := b.says("c", 4, Last{4, 2}); len(fx.Send) == 0 || fx.Send[0].To != "b" || fx.Send[0].Message.Kind != Probe {
		t.Fatalf("what b said is old, and it is not asked again: %+v", fx)
	}
	b.wantRole(Claiming)
	b.says("b", 4, Last{4, 3})
	b.wantRole(Serving)
	b.step(Event{Kind: Append})
	b.written()
	if fx := b.says("b", 4, Last{4, 4}); fx.Committed != 0 {
		t.Error("a commit without a replica that may be in sync by now")
	}
	if fx := b.says("c", 4, Last{4, 4}); fx.Committed != 4 {
		t.Errorf("committed %d, expected 4", fx.Committed)
	}
	// The table is back: it takes another epoch, and the commit rule is the usual one.
	b.peers.up = busSettled
	b.now += 2 * tendEvery
	b.step(Event{Kind: Tick}) // it asks
	b.read(joined, 20)
	b.now += reread
	b.step(Event{Kind: Tick}) // it asks again, as it has all the time
	fx := b.read(joined, 20)
	if fx.Propose == nil || fx.Propose.Entry.Epoch != 5 {
		t.Fatalf("expected another epoch: %+v", fx)
	}
	b.step(Event{Kind: Proposed, At: 20, Outcome: Won, Table: Table{Entry: fx.Propose.Entry, Revision: 21}})
	b.written()
	b.wantRole(Serving)
	if b.table.asFound {
		t.Error("commits still need who is not in sync")
	}
}

// Who hears of a higher epoch serves no more.
func TestKept_Deposed(t *testing.T) {
	b := started(t, stored(paired, Last{4, 3}))
	b.says("b", 5, Last{4, 3})
	b.wantRole(Following)
	b = started(t, stored(paired, Last{4, 3}))
	b.says("b", 4, Last{4, 3})
	b.wantRole(Serving)
	b.says("b", 5, Last{4, 3})
	b.wantRole(Following)
}

// The successor of the kept entry is an earlier run's, which may have written under it:
// it is claimed under another epoch.
func TestKept_Successor(t *testing.T) {
	b := started(t, stored(paired, Last{4, 3}))
	b.says("b", 4, Last{4, 3})
	b.wantRole(Serving)
	next := paired
	next.Epoch = 5
	b.peers.up = busSettled
	b.step(Event{Kind: TableSeen, Table: Table{Entry: next, Revision: 21}})
	b.written()
	b.wantRole(Following)
	b.now += reread
	b.step(Event{Kind: Tick}) // it asks
	fx := b.read(next, 21)
	if fx.Propose == nil || fx.Propose.Entry.Epoch != 6 {
		t.Fatalf("expected another epoch: %+v", fx)
	}
}

// What an earlier run sent to a follower and has lost is fetched from it, so that no
// number is given twice.
func TestKept_Tail(t *testing.T) {
	b := started(t, stored(paired, Last{4, 3}))
	fx := b.says("b", 4, Last{4, 5})
	if len(fx.Send) != 1 || fx.Send[0].Message.Kind != Fetch || fx.Send[0].Message.Last != (Last{4, 3}) {
		t.Fatalf("expected a Fetch: %+v", fx)
	}
	m := fx.Send[0].Message
	b.wantRole(Claiming)
	tail := Message{
		Kind: Tail, Partition: 1, Epoch: 4, Session: m.Session, Run: 3, Last: Last{4, 3},
		Records: []Record{{Last: Last{4, 4}}, {Last: Last{4, 5}}},
	}
	if got, err := ParseMessage(tail.Append(nil)); err != nil || len(got.Records) != 2 || got.Kind != Tail {
		t.Fatalf("%+v, %v", got, err)
	}
	old := tail
	old.Session--
	if fx := b.step(Event{Kind: Received, Peer: "b", Message: old}); len(fx.Write) != 0 {
		t.Error("it takes what belongs to another session")
	}
	b.step(Event{Kind: Received, Peer: "b", Message: tail})
	b.wantRole(Claiming)
	b.written()
	b.wantRole(Serving)
	if b.Last() != (Last{4, 5}) {
		t.Errorf("it ends with %v", b.Last())
	}
	// A history that is another one is not fetched, nor served.
	b = started(t, stored(paired, Last{4, 3}))
	if fx := b.says("b", 4, Last{3, 3}); len(fx.Send) != 0 {
		t.Errorf("%+v", fx)
	}
	b.wantRole(Claiming)
}

// A follower sends its owner the records that it asks for, and answers the first question
// of a session when all is written that came in earlier ones.
func TestKept_Follower(t *testing.T) {
	theirs := Entry{Epoch: 4, Owner: "b", InSync: []Broker{"b", "a"}}
	b := started(t, stored(theirs, Last{4, 3}))
	from := func(m Message) *Effects {
		m.Epoch, m.Run = 4, 7
		return b.step(Event{Kind: Received, Peer: "b", Message: m})
	}
	from(Message{Kind: Probe, Session: 1})
	from(Message{Kind: Records, Session: 1, Last: Last{4, 3}, Records: []Record{{Last: Last{4, 4}}}})
	if fx := from(Message{Kind: Probe, Session: 2}); len(fx.Send) != 0 {
		t.Fatalf("it answers before record 4 is written: %+v", fx)
	}
	if fx := b.written(); len(fx.Send) != 1 || fx.Send[0].Message.Last != (Last{4, 4}) || fx.Send[0].Message.Session != 2 {
		t.Fatalf("%+v", fx)
	}
	fx := from(Message{Kind: Fetch, Session: 2, Last: Last{4, 2}})
	if len(fx.Load) != 1 || fx.Load[0].From != 3 || fx.Load[0].To != 5 || !fx.Load[0].Tail {
		t.Fatalf("%+v", fx)
	}
	fx = b.step(Event{Kind: Loaded, Load: fx.Load[0], Records: []Record{{Last: Last{4, 3}}, {Last: Last{4, 4}}}})
	if len(fx.Send) != 1 || fx.Send[0].Message.Kind != Tail || fx.Send[0].Message.Last != (Last{4, 2}) {
		t.Fatalf("%+v", fx)
	}
}
