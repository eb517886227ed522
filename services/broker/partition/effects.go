// SPDX-License-Identifier: Apache-2.0

package partition

// Effects is what follows from a Step. Write is written in its order; all else
// may be done at once: what must wait for the disk is an effect of the Step that
// is told Written. Reset it between steps; its memory is used again.
type Effects struct {
	// Write is given to the disk, in order, behind what was given before.
	Write []Write
	// Send goes to the peers' replicas of this partition. It may be lost.
	Send []Envelope
	// Load is read from the disk, not before the Write of earlier steps, and
	// answered with Loaded. Answering late is how catching up is throttled.
	Load []Load
	// Propose is a change of the table, to be answered with Proposed; nil for
	// none.
	Propose *Proposal
	// ReadTable asks for the entry as it is now, to be answered with TableRead.
	ReadTable bool
	// Committed says that everything up to that n may be acknowledged, if it is
	// not 0.
	Committed uint64
	// RoleChanged says that Role() is another one than before.
	RoleChanged bool
	// Planned says that the owner handed over of its own will, so that channels
	// may move; else what was not committed is lost, and its clients are closed.
	Planned bool
	// Alarm says what a person must see, empty for nothing.
	Alarm string
	// WakeIn is after how many ms, at the latest, to Step with Tick; 0 for never.
	WakeIn int64
}

// Reset empties fx and keeps its memory.
func (fx *Effects) Reset() {
	clear(fx.Write)
	clear(fx.Send)
	*fx = Effects{Write: fx.Write[:0], Send: fx.Send[:0], Load: fx.Load[:0]}
}

func (fx *Effects) wakeIn(ms int64) {
	if ms = max(ms, 1); fx.WakeIn == 0 || ms < fx.WakeIn {
		fx.WakeIn = ms
	}
}

// Envelope is a message and whom it is for.
type Envelope struct {
	To      Broker
	Message Message
}

// WriteKind is what a Write does.
type WriteKind uint8

// The writes.
const (
	// PutRecord applies a batch, sets KindLast and, with Log, keeps the batch
	// under KindLog.
	PutRecord WriteKind = iota + 1
	// PutState stores State, synced with everything before it.
	PutState
	// PutPiece applies a piece of a snapshot; with Done it also sets KindLast.
	PutPiece
	// Wipe deletes every key of the partition but KindState and KindTable. It need
	// not be one batch.
	Wipe
	// TrimLog deletes the records below To from the log.
	TrimLog
	// PutTable keeps an entry of the table; one without a Revision deletes what is kept.
	PutTable
)

// Write is one change of what is stored. Which fields are set depends on Kind.
type Write struct {
	Kind WriteKind
	// Ticket counts the writes of a replica. Written says up to where they are
	// done: a PutState on stable storage, the others as the Sync of the broker
	// has it.
	Ticket uint64
	Record Record // PutRecord; PutPiece with Done: Last
	Log    bool   // PutRecord
	State  State  // PutState
	Batch  []byte // PutPiece
	Done   bool   // PutPiece
	To     uint64 // TrimLog
	Table  Table  // PutTable
}

// Load asks for something to send to a peer.
type Load struct {
	Peer    Broker
	Session uint64
	// From and To are the records wanted, [From, To), or as many of them as
	// Bytes allows, at least one. From 0 asks for a piece of a snapshot instead.
	From, To uint64
	// Snapshot and Part name the piece, of about Bytes. Part 1 begins a scan of
	// the store as it is then, which lasts until the piece that is Done or
	// another snapshot for the same peer.
	Snapshot uint64
	Part     uint32
	// Bytes is how much is wanted.
	Bytes int
	// Tail says that a follower reads for its owner, which lacks what it has.
	Tail bool
}

// Proposal is a change of the table: Entry, if the entry is at revision At, where
// 0 says that there is none.
type Proposal struct {
	At    uint64
	Entry Entry
}

// Outcome is what is known of a proposal.
type Outcome uint8

// The outcomes.
const (
	// Won: the entry was changed so.
	Won Outcome = iota + 1
	// Beaten: the entry was at another revision.
	Beaten
	// Unknown: no answer; it may have been changed, or may yet be.
	Unknown
	// Untaken: nobody took the proposal. It has not been carried out, and will not be.
	Untaken
)

// Role is what a replica does.
type Role uint8

// The roles.
const (
	// Following: it takes what the owner sends, if there is one.
	Following Role = iota
	// Claiming: the table calls it owner, and it is not ready to serve.
	Claiming
	// Serving: it takes Append. What is committed may be acknowledged.
	Serving
	// Handing: as Serving, but the owner is about to change: no Append now.
	Handing
	// Alarmed: the table went back. It does nothing until an operator decides.
	Alarmed
)

// Copy is what a replica's copy is worth.
type Copy uint8

// The copies. Only a Whole one may make its broker the owner.
const (
	// Empty: there is nothing, or the disk was lost.
	Empty Copy = iota
	// Fetching: a snapshot is being written over it.
	Fetching
	// Suspect: it may lack what it once acknowledged, because the power was cut.
	Suspect
	// Whole: it has everything that it acknowledged.
	Whole
)

// State is what a replica must never forget; it is always synced.
type State struct {
	// Epoch is the highest that it knows: it answers no owner of a lower one.
	Epoch uint64
	Copy  Copy
}
