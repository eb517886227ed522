// SPDX-License-Identifier: Apache-2.0

package partition

import (
	"encoding/binary"
	"errors"
)

// MessageKind is what one replica tells another.
type MessageKind uint8

// The messages. An owner sends the first three and Fetch, a follower answers the first
// three with Answer, and Fetch with Tail.
const (
	// Probe opens a session: what do you have? It also asks for the epoch to be
	// stored.
	Probe MessageKind = iota + 1
	// Records carries batches behind Last. Without any it says what a copy needs.
	Records
	// Piece carries a part of a snapshot.
	Piece
	// Answer says what the follower has on its disk.
	Answer
	// Fetch asks for what the follower has behind Last.
	Fetch
	// Tail carries batches behind Last, as Records does, to an owner that lacks them.
	Tail
)

// Record is one batch of the history of a partition.
type Record struct {
	Last
	// Batch is a kv.Batch, encoded; it has no KindLast of its own.
	Batch []byte
}

// Message is one message between two replicas of a partition. Which fields are
// set depends on Kind.
type Message struct {
	Kind      MessageKind
	Partition ID
	// Epoch is the highest that the sender knows.
	Epoch uint64
	// Session is the owner's number for its conversation with this follower; a
	// follower repeats it.
	Session uint64
	// Run is the follower's run: its own in an Answer, else the one that the
	// owner believes to talk to, 0 if it does not know.
	Run uint64
	// Last is the record before the first of Records and Tail, the last record of the
	// snapshot in its last Piece, what the follower has in an Answer, and what the
	// owner has in a Fetch.
	Last Last
	// Need is up to where a copy must reach to hold all that may have been
	// acknowledged (Records).
	Need    uint64
	Records []Record
	// Snapshot names the snapshot, Part numbers its pieces from 1; an Answer has
	// the last that was written.
	Snapshot uint64
	Part     uint32
	// Done marks the last piece.
	Done bool
	// Batch is the content of a Piece, a kv.Batch, encoded.
	Batch []byte
	// Copy is the state of the follower's copy (Answer).
	Copy Copy
	// Gap says that the follower cannot use what it was sent: the owner should
	// open another session (Answer).
	Gap bool
}

// ErrBadMessage is returned for bytes that are no message.
var ErrBadMessage = errors.New("partition: message is not readable")

const messageVersion = 1

const (
	messageDone = 1 << 0
	messageGap  = 1 << 1
)

// Append encodes m: version u8, kind u8, flags u8, copy u8, partition u16, epoch,
// session, run, last (epoch, n), need, snapshot u64 each, part u32, then the rest:
// of Records and Tail for each its epoch and n u64, length u32 and batch; of a Piece its
// batch. Integers are big endian.
func (m *Message) Append(dst []byte) []byte {
	var flags byte
	if m.Done {
		flags |= messageDone
	}
	if m.Gap {
		flags |= messageGap
	}
	dst = append(dst, messageVersion, byte(m.Kind), flags, byte(m.Copy))
	dst = binary.BigEndian.AppendUint16(dst, uint16(m.Partition))
	for _, v := range [7]uint64{m.Epoch, m.Session, m.Run, m.Last.Epoch, m.Last.N, m.Need, m.Snapshot} {
		dst = binary.BigEndian.AppendUint64(dst, v)
	}
	dst = binary.BigEndian.AppendUint32(dst, m.Part)
	switch m.Kind {
	case Records, Tail:
		for i := range m.Records {
			r := &m.Records[i]
			dst = r.Last.Append(dst)
			dst = binary.BigEndian.AppendUint32(dst, uint32(len(r.Batch)))
			dst = append(dst, r.Batch...)
		}
	case Piece:
		dst = append(dst, m.Batch...)
	case Probe, Answer, Fetch:
	}
	return dst
}

// messageHeader is the length of what every message has.
const messageHeader = 6 + 7*8 + 4

// ParseMessage decodes what Append wrote. The batches are views of b.
func ParseMessage(b []byte) (Message, error) {
	if len(b) < messageHeader || b[0] != messageVersion {
		return Message{}, ErrBadMessage
	}
	m := Message{
		Kind: MessageKind(b[1]), Copy: Copy(b[3]), Done: b[2]&messageDone != 0, Gap: b[2]&messageGap != 0,
		Partition: ID(binary.BigEndian.Uint16(b[4:])),
	}
	if b[2] > messageDone|messageGap || m.Copy > Whole {
		return Message{}, ErrBadMessage
	}
	b = b[6:]
	for _, v := range [7]*uint64{&m.Epoch, &m.Session, &m.Run, &m.Last.Epoch, &m.Last.N, &m.Need, &m.Snapshot} {
		*v, b = binary.BigEndian.Uint64(b), b[8:]
	}
	m.Part, b = binary.BigEndian.Uint32(b), b[4:]
	switch m.Kind {
	case Records, Tail:
		for len(b) > 0 {
			if len(b) < 20 {
				return Message{}, ErrBadMessage
			}
			r := Record{Last: Last{Epoch: binary.BigEndian.Uint64(b), N: binary.BigEndian.Uint64(b[8:])}}
			n := uint64(binary.BigEndian.Uint32(b[16:]))
			if b = b[20:]; n > uint64(len(b)) {
				return Message{}, ErrBadMessage
			}
			r.Batch, b = b[:n:n], b[n:]
			m.Records = append(m.Records, r)
		}
	case Piece:
		m.Batch = b
	case Probe, Answer, Fetch:
		if len(b) > 0 {
			return Message{}, ErrBadMessage
		}
	default:
		return Message{}, ErrBadMessage
	}
	return m, nil
}
