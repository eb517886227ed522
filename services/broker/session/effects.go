// SPDX-License-Identifier: Apache-2.0

package session

import "github.com/manormq/manor/infra/mqtt"

// Effects is what follows from a Step, in the order in which it must be done:
// Save is written, then Route and Send are acted on, an Out with AfterCommit
// only when Save is durable. Reset it between steps; its memory is used again.
type Effects struct {
	Save  []Record
	Route []Publication
	Send  []Out
	// Ended says that the session is over: its records, queue and
	// subscriptions go, after Route and Send.
	Ended bool
}

// Reset empties fx and keeps its memory.
func (fx *Effects) Reset() {
	clear(fx.Route)
	clear(fx.Send)
	fx.Save, fx.Route, fx.Send, fx.Ended = fx.Save[:0], fx.Route[:0], fx.Send[:0], false
}

// RecordKind is what a Record writes or deletes.
type RecordKind uint8

// The records.
const (
	PutSession RecordKind = iota + 1
	PutSubscription
	DeleteSubscription
	PutInbound
	DeleteInbound
	PutInflight
	DeleteInflight
	DeleteQueued
)

// Record is one change of the stored session.
type Record struct {
	Kind   RecordKind
	State  State              // PutInflight
	Packet uint16             // PutInbound to DeleteInflight
	Size   uint32             // PutInflight
	Seq    uint64             // PutInflight, DeleteQueued
	Order  uint64             // PutInflight
	Sub    *mqtt.Subscription // PutSubscription
	Filter string             // DeleteSubscription
}

// Publication is something to route: the message of the Publish event if Will
// is nil.
type Publication struct {
	Will *mqtt.Message
	// Token comes back with Routed; zero asks for no answer.
	Token Token
	// Packet is the publish's identifier, for Routed.
	Packet uint16
	// Exact says that the origin must remember the message until it is
	// committed everywhere: it is a QoS 2 publish of a stored session.
	Exact bool
}

// OutKind is what an Out tells the gateway.
type OutKind uint8

// The kinds of Out.
const (
	OutOpened OutKind = iota + 1
	OutDeliver
	OutAck
	OutSuback
	OutUnsuback
	OutClose
)

// Out is one thing to tell the gateway.
type Out struct {
	Kind OutKind
	// AfterCommit holds the Out back until Save is durable.
	AfterCommit bool
	Present     bool   // OutOpened
	Credit      uint64 // OutOpened: the grant to step with once it was said
	Dup         bool   // OutDeliver
	// Retry says that the client has the message already, on this connection: if
	// it cannot be had any more, nothing is sent.
	Retry   bool            // OutDeliver
	QoS     mqtt.QoS        // OutDeliver
	Ack     mqtt.AckKind    // OutAck
	Reason  mqtt.ReasonCode // OutAck, OutClose
	Packet  uint16
	Seq     uint64            // OutDeliver: of the queue
	Reasons []mqtt.ReasonCode // OutSuback, OutUnsuback
	// New says for each filter of a Subscribe that it was not held before.
	New  []bool              // OutSuback
	Subs []mqtt.Subscription // OutSuback: for the shard's use
	Mark uint64              // OutSuback: for the shard's use
}

func (s *Session) save(fx *Effects, r Record) {
	if s.durable {
		fx.Save = append(fx.Save, r)
	}
}

// saveSession writes the session record: of a session that outlives its
// connection, and of one that has a will, which must be sent after a crash too.
func (s *Session) saveSession(fx *Effects) {
	if s.durable || s.recorded {
		fx.Save = append(fx.Save, Record{Kind: PutSession})
	}
}
