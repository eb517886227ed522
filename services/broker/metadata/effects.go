// SPDX-License-Identifier: Apache-2.0

package metadata

import "github.com/manormq/manor/infra/kv"

// Event is what a Machine is told: a Write, Received, Tick, Join, Leave or Reset.
type Event interface{ event() }

// Write asks for mutations, in order. They become visible together.
type Write struct {
	// ID comes back in Effects.Done and Effects.Reached. It is the caller's.
	ID        uint64
	Mutations []Mutation
}

// Mutation is a put or a delete of one key. A delete of what is not there, and a
// put of what is, write nothing.
type Mutation struct {
	Key Key
	// Value is taken over.
	Value  []byte
	Delete bool
	// Rank is that of the Value; see there. If it is below the rank of the value
	// that is seen, the mutation is left out, and the write ends with ErrStale.
	Rank uint64
}

// Received is a message of another broker.
type Received struct {
	// From is the member that the link has proved the sender to be.
	From string
	// Message is taken over.
	Message []byte
}

// Tick lets time pass: exchanges begin and end, what is settled is cleared away.
type Tick struct {
	// Reachable are the members to whom messages would now go.
	Reachable []string
}

// Join makes a broker a member. From now on what it may not have seen is kept.
type Join struct{ Name string }

// Told says that every member of now was told by Join: if there was none, this broker is
// alone.
type Told struct{}

// Leave ends a membership for good: nothing is kept for it any more, and its
// present store cannot come back. It may Join again after a Reset.
type Leave struct{ Name string }

// Reset gives up everything that is stored, and begins again as an empty store
// under a new actor. It is for a broker that was told Effects.Retired.
type Reset struct{}

func (Write) event()    {}
func (Received) event() {}
func (Tick) event()     {}
func (Told) event()     {}
func (Join) event()     {}
func (Leave) event()    {}
func (Reset) event()    {}

// Effects is what is to be done after a turn, in the order of the fields. Nothing
// below Batch may be done before Batch is written.
type Effects struct {
	// Batch is to be written to the store, and with Sync to be on stable storage;
	// also if it is empty. Without Sync a power cut may take it: it can be had
	// from the other brokers again.
	Batch kv.Batch
	Sync  bool
	// Changes of what is seen, local and remote, in order for each key.
	Changes []Change
	// Send are messages to other brokers. Any may be lost, doubled or late. They may
	// say that this broker has a write, and so that its watchers know.
	Send []Message
	// Done are the writes that last.
	Done []Result
	// Reached are the writes that every reachable member has in its routes, or for
	// which that took longer than Config.Reach.
	Reached []uint64
	// Retired says that the others have given this store up for lost. It answers
	// writes with ErrRetired until a Reset.
	Retired bool
}

// Message is to be sent to a member. Several may share Bytes, so nobody changes
// them.
type Message struct {
	To    string
	Bytes []byte
}

// Result is how the write with ID ended. Err is nil, ErrStale, ErrInvalid or
// ErrRetired.
type Result struct {
	ID  uint64
	Err error
}

// Reset empties fx and keeps its memory.
func (fx *Effects) Reset() {
	fx.Batch.Reset()
	clear(fx.Send)
	clear(fx.Changes)
	*fx = Effects{Batch: fx.Batch, Send: fx.Send[:0], Changes: fx.Changes[:0], Done: fx.Done[:0], Reached: fx.Reached[:0]}
}
