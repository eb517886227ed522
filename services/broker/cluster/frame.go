// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/binary"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/wire"
	"github.com/manormq/manor/services/broker/partition"
)

// The types of frames.
const (
	wireEnqueue = 0x01
	wireTell    = 0x02
	wireAsk     = 0x03
	wireAnswer  = 0x41
	wireReply   = 0x42
)

// The flags of an Enqueue above those of its message.
const (
	flagFirst = 0b0010_0000 // nothing before it is under way
	flagKeep  = 0b0100_0000 // it is to be retained
	flagExact = 0b1000_0000 // it has an origin and a number
)

const messageFlags = 0b0001_0111 // QoS, RETAIN, expiry

// Enqueue is a publish for sessions of partitions that the other broker owns. Its
// payload crosses once, whoever it is for.
type Enqueue struct {
	Tenant string
	// From is the session that published, for No Local [MQTT-3.8.3-3], in the
	// partition Origin.
	From   mqtt.ClientID
	Origin partition.ID
	// N numbers an exact publish of Origin: a partition that has applied N, or a
	// higher one, skips it. 0 is none.
	N uint64
	// Parts are the partitions whose subscriptions match.
	Parts []partition.ID
	// Members were chosen of shared subscriptions.
	Members []Member
	// After are the exact publishes of Origin that are under way to partitions before
	// this one: a partition that has not applied its own refuses this one.
	After []After
	// First says that nothing of Origin was under way to any of these partitions. A
	// partition that has refused something of Origin refuses all until the next First,
	// so that what comes again is in its order.
	First bool
	// Keep says that Message becomes the retained one of its topic, in partition
	// Retain.
	Keep   bool
	Retain partition.ID
	// Message's Expiry is what is left of it.
	Message mqtt.Message
}

// After is an exact publish that a partition must have before another.
type After struct {
	Partition partition.ID
	N         uint64
}

// Member is a session that a shared subscription chose; without a Client the owner
// of the partition chooses one there.
type Member struct {
	Partition partition.ID
	Client    mqtt.ClientID
	Filter    string // $share/NAME/FILTER
}

// Size is what e counts in lanes, in bytes.
func (e *Enqueue) Size() int {
	n := enqueueOverhead + len(e.Tenant) + len(e.From) + 2*len(e.Parts) + 10*len(e.After) + e.Message.Size()
	for i := range e.Members {
		n += 8 + len(e.Members[i].Client) + len(e.Members[i].Filter)
	}
	return n
}

// enqueueOverhead is about what an Enqueue takes besides its bytes.
const enqueueOverhead = 64

// appendEnqueue appends a frame with
//
//	tenant | client | origin u16 | [n u64 | after uvarint, (partition u16 | n u64) each] | [retain u16]
//	| parts uvarint, u16 each | members uvarint, (partition u16 | client | filter) each
//	| message as on the link to a gateway
func appendEnqueue(dst []byte, id uint32, e *Enqueue) []byte {
	flags := link.MessageFlags(&e.Message)
	if e.First {
		flags |= flagFirst
	}
	if e.Keep {
		flags |= flagKeep
	}
	if e.N != 0 {
		flags |= flagExact
	}
	dst, body := wire.OpenFrame(dst, wireEnqueue, flags, id)
	dst = wire.AppendBytes(dst, e.Tenant)
	dst = wire.AppendBytes(dst, e.From)
	dst = binary.BigEndian.AppendUint16(dst, uint16(e.Origin))
	if e.N != 0 {
		dst = binary.BigEndian.AppendUint64(dst, e.N)
		dst = binary.AppendUvarint(dst, uint64(len(e.After)))
		for _, a := range e.After {
			dst = binary.BigEndian.AppendUint16(dst, uint16(a.Partition))
			dst = binary.BigEndian.AppendUint64(dst, a.N)
		}
	}
	if e.Keep {
		dst = binary.BigEndian.AppendUint16(dst, uint16(e.Retain))
	}
	dst = binary.AppendUvarint(dst, uint64(len(e.Parts)))
	for _, p := range e.Parts {
		dst = binary.BigEndian.AppendUint16(dst, uint16(p))
	}
	dst = binary.AppendUvarint(dst, uint64(len(e.Members)))
	for i := range e.Members {
		m := &e.Members[i]
		dst = binary.BigEndian.AppendUint16(dst, uint16(m.Partition))
		dst = wire.AppendBytes(dst, m.Client)
		dst = wire.AppendBytes(dst, m.Filter)
	}
	dst = link.AppendMessage(dst, &e.Message)
	return wire.ShutFrame(dst, body)
}

// memberLeast is the least that a member takes, in bytes.
const memberLeast = 4

// readEnqueue reads a frame into e, whose slices are used again. The message's
// bytes are views.
func readEnqueue(f wire.Frame, e *Enqueue) error {
	r := wire.Reader{Data: f.Body}
	*e = Enqueue{Parts: e.Parts[:0], Members: e.Members[:0], After: e.After[:0]}
	e.First = f.Flags&flagFirst != 0
	e.Tenant, e.From = r.String(), mqtt.ClientID(r.String())
	e.Origin = partition.ID(r.U16())
	if f.Flags&flagExact != 0 {
		if e.N = r.U64(); e.N == 0 {
			r.Bad = true
		}
		for range r.Length(10) {
			e.After = append(e.After, After{partition.ID(r.U16()), r.U64()})
		}
	}
	if e.Keep = f.Flags&flagKeep != 0; e.Keep {
		e.Retain = partition.ID(r.U16())
	}
	for range r.Length(2) {
		e.Parts = append(e.Parts, partition.ID(r.U16()))
	}
	for range r.Length(memberLeast) {
		e.Members = append(e.Members, Member{partition.ID(r.U16()), mqtt.ClientID(r.String()), r.String()})
	}
	e.Message = link.ReadMessage(&r, f.Flags)
	return f.Check(&r, messageFlags|flagFirst|flagKeep|flagExact)
}

// Answer is what became of an Enqueue.
type Answer struct {
	// Reason is Success when all of it is committed.
	Reason mqtt.ReasonCode
	// Hit says that somebody has subscribed to it.
	Hit bool
	// Again says that a partition is not served there, or lacks an exact publish that
	// comes before: what it was for it has not taken.
	Again bool
	// Body is the answer to an Ask.
	Body string
	// Err is ErrLost if the link was lost before there was an answer: the other
	// broker may have it, or not.
	Err error
}

// The flags of an Answer.
const (
	answerHit   = 1
	answerAgain = 2
)

func appendAnswer(dst []byte, id uint32, a Answer) []byte {
	dst, body := wire.OpenFrame(dst, wireAnswer, 0, id)
	flags := byte(0)
	if a.Hit {
		flags |= answerHit
	}
	if a.Again {
		flags |= answerAgain
	}
	dst = append(dst, byte(a.Reason), flags)
	return wire.ShutFrame(dst, body)
}

func readAnswer(f wire.Frame) (Answer, error) {
	r := wire.Reader{Data: f.Body}
	a := Answer{Reason: mqtt.ReasonCode(r.U8())}
	flags := r.U8()
	a.Hit, a.Again = flags&answerHit != 0, flags&answerAgain != 0
	r.Bad = r.Bad || flags&^(answerHit|answerAgain) != 0
	return a, f.Check(&r, 0)
}

// Stream names those who exchange bytes by Tell.
type Stream uint8

// The streams.
const (
	Metadata Stream = iota + 1
	Replication
)

// appendTell appends a frame with the stream and its bytes.
func appendTell(dst []byte, s Stream, b []byte) []byte {
	dst, body := wire.OpenFrame(dst, wireTell, byte(s), 0)
	return wire.ShutFrame(append(dst, b...), body)
}

// appendAsk appends a frame with a question, or as wireReply with its answer.
func appendAsk(dst []byte, kind byte, id uint32, b []byte) []byte {
	dst, body := wire.OpenFrame(dst, kind, 0, id)
	return wire.ShutFrame(append(dst, b...), body)
}
