// SPDX-License-Identifier: Apache-2.0

package partition

import (
	"testing"
)

// peers answers what it is set to.
type peers struct{ beat, silence, up int64 }

func (p *peers) BeatAge(Broker) int64 { return p.beat }
func (p *peers) Silence(Broker) int64 { return p.silence }
func (p *peers) BusUp() int64         { return p.up }

// bench steps one replica and keeps what it wants.
type bench struct {
	*Replica
	// uninformed is what Config.Informed says not to be.
	uninformed bool
	t          testing.TB
	now        int64
	e          Event
	fx         Effects
	peers      *peers
}

func newBench(t testing.TB, s *Stored) *bench {
	b := &bench{t: t, now: 1, peers: &peers{up: 1 << 30}}
	b.Replica = New(Config{ID: 1, Self: "a", Run: 7, Peers: b.peers, Informed: func() bool { return !b.uninformed }})
	b.step(Event{Kind: Start, Stored: s})
	return b
}

func (b *bench) step(e Event) *Effects {
	b.fx.Reset()
	b.now++
	b.e = e
	b.Step(b.now, &b.e, &b.fx)
	return &b.fx
}

// written has the disk do everything.
func (b *bench) written() *Effects { return b.step(Event{Kind: Written, Ticket: b.ticket}) }

func (b *bench) read(e Entry, revision uint64) *Effects {
	return b.step(Event{Kind: TableRead, Table: Table{Entry: e, Revision: revision}})
}

func (b *bench) wantRole(r Role) {
	b.t.Helper()
	if b.Role() != r {
		b.t.Fatalf("role is %d, expected %d", b.Role(), r)
	}
}

var alone = Entry{Epoch: 4, Owner: "a", InSync: []Broker{"a"}}

func lone(t testing.TB) *bench {
	b := newBench(t, &Stored{State: State{Epoch: 4, Copy: Whole}, Log: NewLog(Last{4, 10})})
	b.read(alone, 20)
	b.written()
	b.wantRole(Serving)
	return b
}

// With one replica an append is one write: no log, no message, no proposal, no
// allocation, and no need to be woken.
func TestReplica_Alone(t *testing.T) {
	b := lone(t)
	batch := []byte{}
	n := testing.AllocsPerRun(100, func() {
		fx := b.step(Event{Kind: Append, Batch: batch})
		if len(fx.Write) != 1 || fx.Write[0].Log || len(fx.Send) != 0 || fx.Propose != nil || fx.Committed != 0 || fx.WakeIn != 0 {
			t.Fatalf("an append does %+v", fx)
		}
		if fx := b.written(); fx.Committed != b.Last().N || fx.WakeIn != 0 {
			t.Fatalf("written: %+v", fx)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations for an append, expected none", n)
	}
}

func BenchmarkReplica_Alone(b *testing.B) {
	r := lone(b)
	b.ReportAllocs()
	for b.Loop() {
		r.step(Event{Kind: Append})
		r.written()
	}
}

// What the table says below what is stored stops the replica, once it was asked
// for; an operator's entry starts it again.
func TestReplica_TableWentBack(t *testing.T) {
	b := lone(t)
	old := Entry{Epoch: 3, Owner: "a", InSync: []Broker{"a"}}
	b.now += 1000
	if fx := b.step(Event{Kind: TableSeen, Table: Table{Entry: old, Revision: 30}}); !fx.ReadTable || fx.Alarm != "" {
		t.Fatalf("a watch that may be late: %+v", fx)
	}
	b.wantRole(Serving)
	if fx := b.read(old, 30); fx.Alarm == "" || !fx.RoleChanged {
		t.Fatalf("a table that went back: %+v", fx)
	}
	b.wantRole(Alarmed)
	b.step(Event{Kind: Append})
	b.written()
	if b.Last() != (Last{4, 10}) {
		t.Errorf("it appends up to %v", b.Last())
	}
	b.now += 10_000
	if fx := b.step(Event{Kind: Tick}); !fx.ReadTable {
		t.Fatalf("it does not look again: %+v", fx)
	}
	repaired := Entry{Epoch: 9, Owner: "a", InSync: []Broker{"a"}}
	b.read(repaired, 31)
	b.written()
	b.wantRole(Serving)
}

// A broker without its disk, which the table calls owner, serves nothing until an
// operator gives up what it had.
func TestReplica_DiskLost(t *testing.T) {
	b := newBench(t, &Stored{Log: NewLog(Last{})})
	if fx := b.read(alone, 20); fx.Alarm == "" {
		t.Errorf("no alarm: %+v", fx)
	}
	b.written()
	b.wantRole(Claiming)
	given := Entry{Epoch: 5, Owner: "a", InSync: []Broker{"a"}, Abandoned: true}
	if fx := b.step(Event{Kind: TableSeen, Table: Table{Entry: given, Revision: 21}}); fx.Propose != nil {
		t.Fatalf("a proposal before the disk knows of the entry that it follows: %+v", fx)
	}
	fx := b.written()
	if fx.Propose == nil || fx.Propose.Entry.Abandoned || fx.Propose.At != 21 {
		t.Fatalf("expected a proposal that takes the mark away: %+v", fx)
	}
	e := fx.Propose.Entry
	b.step(Event{Kind: Proposed, At: 21, Outcome: Won, Table: Table{Entry: e, Revision: 22}})
	b.written()
	b.wantRole(Serving)
}

// A partition that is begun stays the broker's if it dies meanwhile: the table goes on from its
// first epoch, in which an empty copy is a whole one, only when the disk says that it is whole.
func TestReplica_BegunOnTheDiskFirst(t *testing.T) {
	first := Entry{Epoch: 1, Owner: "a", InSync: []Broker{"a"}}
	b := newBench(t, &Stored{Log: NewLog(Last{})})
	if fx := b.read(first, 16); fx.Propose != nil {
		t.Fatalf("proposed before the copy is whole on the disk: %+v", fx)
	}
	b.step(Event{Kind: Written, Ticket: b.ticket - 1}) // the epoch alone
	if fx := b.step(Event{Kind: Tick}); fx.Propose != nil {
		t.Fatalf("proposed before the copy is whole on the disk: %+v", fx)
	}
	fx := b.written()
	if fx.Propose == nil || b.Copy() != Whole {
		t.Fatalf("expected a proposal, with a copy that is whole: %+v", fx)
	}
}

var three = Entry{Epoch: 4, Owner: "a", InSync: []Broker{"a", "b", "c"}}

// claimed is a replica that has claimed epoch 5 with two followers that have all.
func claimed(t *testing.T) *bench {
	b := newBench(t, &Stored{State: State{Epoch: 4, Copy: Whole}, Log: NewLog(Last{4, 10})})
	fx := b.read(three, 20)
	if fx.Propose == nil {
		t.Fatalf("an owner that was started anew keeps its epoch: %+v", fx)
	}
	e := fx.Propose.Entry
	b.step(Event{Kind: Proposed, At: 20, Outcome: Won, Table: Table{Entry: e, Revision: 21}})
	b.written()
	b.wantRole(Claiming)
	b.answer("b", Last{4, 10}, 5)
	b.wantRole(Claiming) // c is reached, and has not stored the epoch
	b.answer("c", Last{4, 10}, 5)
	b.wantRole(Serving)
	return b
}

func (b *bench) answer(from Broker, last Last, epoch uint64) *Effects {
	return b.step(Event{Kind: Received, Peer: from, Message: Message{
		Kind: Answer, Partition: 1, Epoch: epoch, Session: b.peer(from).session, Run: 3, Last: last, Copy: Whole,
	}})
}

// A commit needs the whole ISR; who leaves it is needed until the table says so.
func TestReplica_CommitNeedsISR(t *testing.T) {
	b := claimed(t)
	if fx := b.step(Event{Kind: Append}); len(fx.Send) != 2 || !fx.Write[0].Log {
		t.Fatalf("an append does %+v", fx)
	}
	b.written()
	next := Last{5, 11}
	if fx := b.answer("b", next, 5); fx.Committed > 10 {
		t.Fatalf("committed %d without c", fx.Committed)
	}
	b.now += peerStuck
	fx := b.step(Event{Kind: Tick})
	if fx.Propose == nil || fx.Propose.Entry.IsInSync("c") || !fx.Propose.Entry.IsInSync("b") {
		t.Fatalf("expected a proposal without c: %+v", fx)
	}
	at, e := fx.Propose.At, fx.Propose.Entry
	if fx := b.step(Event{Kind: Proposed, At: at, Outcome: Unknown}); !fx.ReadTable || fx.Committed != 0 {
		t.Fatalf("an outcome that is not known: %+v", fx)
	}
	if fx := b.step(Event{Kind: TableRead, Table: b.Table()}); fx.Committed != 0 {
		t.Fatalf("committed %d while the proposal may yet be carried out", fx.Committed)
	}
	if fx := b.step(Event{Kind: TableSeen, Table: Table{Entry: e, Revision: at + 1}}); fx.Committed != 11 {
		t.Fatalf("expected 11 committed: %+v", fx)
	}
}

// A broker that does not know where messages are wanted serves nothing, also what is its own
// by the table, and takes nothing from an owner that is dead.
func TestReplica_ServesWhenInformed(t *testing.T) {
	b := newBench(t, &Stored{State: State{Epoch: 4, Copy: Whole}, Log: NewLog(Last{4, 10})})
	b.uninformed = true
	b.read(alone, 20)
	if fx := b.written(); fx.WakeIn == 0 || fx.WakeIn > informedRead {
		t.Fatalf("it does not look again: %+v", fx)
	}
	b.wantRole(Claiming)
	b.uninformed = false
	if fx := b.step(Event{Kind: Tick}); !fx.RoleChanged {
		t.Fatalf("informed: %+v", fx)
	}
	b.wantRole(Serving)

	f := newBench(t, &Stored{State: State{Epoch: 4, Copy: Whole}, Log: NewLog(Last{4, 10})})
	f.uninformed = true
	f.peers.silence, f.peers.beat = 1<<20, 1<<20
	f.read(Entry{Epoch: 4, Owner: "b", InSync: []Broker{"b", "a"}}, 20)
	f.written()
	if fx := f.step(Event{Kind: Tick}); fx.Propose != nil || fx.WakeIn == 0 || fx.WakeIn > informedRead {
		t.Fatalf("in the place of an owner that is dead: %+v", fx)
	}
	f.uninformed = false
	if fx := f.step(Event{Kind: Tick}); fx.Propose == nil || fx.Propose.Entry.Owner != "a" {
		t.Fatalf("informed: %+v", fx)
	}
}

// What a follower said before it was silent does not bring it back into the ISR: it may have
// been started anew, without its disk, and nothing but its next answer says so.
func TestReplica_JoinsByWhatItSaysNow(t *testing.T) {
	b := claimed(t)
	b.peers.silence = peerOut
	b.now += peerOut
	fx := b.step(Event{Kind: Tick})
	if fx.Propose == nil || fx.Propose.Entry.IsInSync("b") || fx.Propose.Entry.IsInSync("c") {
		t.Fatalf("expected a proposal without the silent ones: %+v", fx)
	}
	b.step(Event{Kind: Proposed, At: fx.Propose.At, Outcome: Won, Table: Table{Entry: fx.Propose.Entry, Revision: fx.Propose.At + 1}})
	b.written()
	b.peers.silence = 0
	probed := map[Broker]bool{}
	for range 10 {
		b.now += tendEvery
		fx := b.step(Event{Kind: Tick})
		if fx.Propose != nil {
			t.Fatalf("in the ISR by what they said before: %+v", fx.Propose)
		}
		for _, e := range fx.Send {
			probed[e.To] = probed[e.To] || e.Message.Kind == Probe
		}
	}
	if !probed["b"] || !probed["c"] {
		t.Fatalf("asked %v, expected b and c", probed)
	}
	fx = b.step(Event{Kind: Received, Peer: "c", Message: Message{
		Kind: Answer, Partition: 1, Epoch: 5, Session: b.peer("c").session, Run: 4, Copy: Empty,
	}})
	if len(fx.Send) != 1 || fx.Send[0].To != "c" || fx.Send[0].Message.Kind != Probe || fx.Propose != nil {
		t.Fatalf("another run: %+v, expected another session", fx)
	}
	fx = b.answer("b", Last{4, 10}, 5)
	if fx.Propose == nil || !fx.Propose.Entry.IsInSync("b") || fx.Propose.Entry.IsInSync("c") {
		t.Fatalf("expected a proposal with b and without c: %+v", fx)
	}
}

// A new link to a follower that had nothing to do leaves it in the ISR, for as long as
// one that leaves records unanswered stays.
func TestReplica_NewLinkToIdlePeer(t *testing.T) {
	b := claimed(t)
	b.now += peerStuck
	fx := b.step(Event{Kind: Linked, Peer: "b"})
	if fx.Propose != nil {
		t.Fatalf("it is asked what it has, and out at once: %+v", fx.Propose)
	}
	if len(fx.Send) != 1 || fx.Send[0].To != "b" || fx.Send[0].Message.Kind != Probe {
		t.Fatalf("expected that b is asked: %+v", fx.Send)
	}
	b.now += peerStuck
	if fx := b.step(Event{Kind: Tick}); fx.Propose == nil || fx.Propose.Entry.IsInSync("b") || !fx.Propose.Entry.IsInSync("c") {
		t.Fatalf("expected a proposal without b, which does not answer: %+v", fx)
	}
}

// A higher epoch in an answer stops commits at once.
func TestReplica_HigherEpochDeposes(t *testing.T) {
	b := claimed(t)
	b.step(Event{Kind: Append})
	b.written()
	b.now += 1000
	if fx := b.answer("b", Last{5, 11}, 6); !fx.ReadTable {
		t.Fatalf("the table is not read: %+v", fx)
	}
	if fx := b.answer("c", Last{5, 11}, 5); fx.Committed != 0 {
		t.Fatalf("committed %d", fx.Committed)
	}
	taken := Entry{Epoch: 6, Owner: "b", InSync: []Broker{"b", "c"}, Others: []Broker{"a"}}
	if fx := b.read(taken, 22); !fx.RoleChanged || fx.Planned {
		t.Fatalf("deposed: %+v", fx)
	}
	b.wantRole(Following)
}

// A follower that hears of a change of the table before its owner does takes nothing
// more of the old epoch: the owner asks it anew when it hears too.
func TestReplica_FollowerIsAhead(t *testing.T) {
	b := claimed(t)
	at := b.Table()
	b.step(Event{Kind: Append})
	b.written()
	b.answer("c", Last{5, 11}, 5)
	b.now += 1000
	if fx := b.answer("b", Last{5, 10}, 6); !fx.ReadTable || fx.Committed != 0 {
		t.Fatalf("an answer of a higher epoch: %+v", fx)
	}
	own := Entry{Epoch: 6, Owner: "a", InSync: at.InSync}
	fx := b.read(own, at.Revision+1)
	b.wantRole(Serving)
	if len(fx.Send) != 1 || fx.Send[0].To != "b" || fx.Send[0].Message.Kind != Probe || fx.Send[0].Message.Epoch != 6 {
		t.Fatalf("the owner hears that its change was carried out: %+v", fx)
	}
	b.written()
	if fx := b.answer("b", Last{5, 11}, 6); fx.Committed != 11 {
		t.Fatalf("expected 11 committed: %+v", fx)
	}
}

// A follower answers what is on its disk, and no owner of a lower epoch.
func TestReplica_Follows(t *testing.T) {
	b := newBench(t, &Stored{State: State{Epoch: 4, Copy: Whole}, Log: NewLog(Last{4, 10})})
	theirs := Entry{Epoch: 5, Owner: "b", InSync: []Broker{"b", "a"}}
	b.read(theirs, 20)
	b.written()
	from := func(m Message) *Effects {
		m.Epoch, m.Run = max(m.Epoch, 4), 7
		return b.step(Event{Kind: Received, Peer: "b", Message: m})
	}
	if fx := from(Message{Kind: Probe, Session: 1}); len(fx.Send) != 1 || fx.Send[0].Message.Epoch != 5 || !fx.Send[0].Message.Gap {
		t.Fatalf("an owner that was deposed: %+v", fx)
	}
	if fx := from(Message{Kind: Probe, Epoch: 5, Session: 2}); len(fx.Send) != 1 || fx.Send[0].Message.Last != (Last{4, 10}) {
		t.Fatalf("a probe: %+v", fx)
	}
	rec := Record{Last: Last{5, 11}}
	if fx := from(Message{Kind: Records, Epoch: 5, Session: 2, Last: Last{4, 10}, Records: []Record{rec}}); len(fx.Send) != 0 || len(fx.Write) != 1 {
		t.Fatalf("it answers before it has written: %+v", fx)
	}
	if fx := b.written(); len(fx.Send) != 1 || fx.Send[0].Message.Last != rec.Last {
		t.Fatalf("written: %+v", fx)
	}
	if fx := b.step(Event{Kind: Received, Peer: "b", Message: Message{Kind: Records, Epoch: 5, Session: 2, Run: 6, Last: rec.Last, Records: []Record{{Last: Last{5, 12}}}}}); len(fx.Write) != 0 {
		t.Fatalf("it takes what was sent to an earlier run: %+v", fx)
	}
	if fx := from(Message{Kind: Records, Epoch: 5, Session: 2, Last: Last{5, 13}}); !fx.Send[0].Message.Gap {
		t.Fatalf("a gap: %+v", fx)
	}
	if fx := b.step(Event{Kind: Linked, Peer: "b"}); len(fx.Send) != 1 || fx.Send[0].Message.Last != rec.Last || fx.Send[0].Message.Session != 2 {
		t.Fatalf("a new link to the owner, and no answer over it: %+v", fx)
	}
	// The owner dies: nothing as long as one of the two moves, then a proposal.
	b.peers.beat = ownerDead + 1
	if fx := b.step(Event{Kind: Tick}); fx.Propose != nil {
		t.Fatalf("with a link that lives: %+v", fx)
	}
	b.peers.silence, b.peers.up = ownerDead+1, busSettled-1
	if fx := b.step(Event{Kind: Tick}); fx.Propose != nil {
		t.Fatalf("with a bus that just came back: %+v", fx)
	}
	b.peers.up = busSettled
	fx := b.step(Event{Kind: Tick})
	if fx.Propose == nil || fx.Propose.Entry.Owner != "a" || fx.Propose.Entry.IsInSync("b") || fx.Propose.Entry.Epoch != 6 {
		t.Fatalf("expected a proposal: %+v", fx)
	}
}
