// SPDX-License-Identifier: Apache-2.0

package partition

import (
	"encoding/binary"
	"errors"

	"github.com/manormq/manor/infra/link"
)

// ID names a partition of a region.
type ID uint16

// Kind is the byte behind the partition in every key. docs/store/keys.md draws
// the keys; a test holds the two together.
type Kind byte

// The kinds of record. Each belongs to the package in brackets.
const (
	// KindSession (shard): tenant, ClientID -> session record.
	KindSession Kind = 's'
	// KindSubscription (shard): sid, filter -> options.
	KindSubscription Kind = 'f'
	// KindInbound (shard): sid, packet id -> empty; a QoS 2 message received
	// and not released.
	KindInbound Kind = 'n'
	// KindInflight (shard): sid, attachment, packet id -> seq, state.
	KindInflight Kind = 'i'
	// KindQueue (queue): sid, seq -> entry.
	KindQueue Kind = 'q'
	// KindBody (queue): body id -> message, for entries that share it.
	KindBody Kind = 'b'
	// KindBodyCount (queue): body id -> number of entries that refer to it.
	KindBodyCount Kind = 'c'
	// KindRetained (retain): tenant, topic -> retained message.
	KindRetained Kind = 'r'
	// KindOutbox (shard): n -> message and the partitions that have not yet
	// answered; what makes QoS 2 exact between partitions.
	KindOutbox Kind = 'o'
	// KindApplied (shard): origin partition -> highest n applied from it.
	KindApplied Kind = 'a'
	// KindNumber (shard): -> the newest number that the partition gave, to a session,
	// a body or an exact publish.
	KindNumber Kind = 'x'
	// KindCell (shard): tenant -> revision and partitions of its cell, where it has
	// something and there is a record of it.
	KindCell Kind = 'p'
	// KindCourse (shard): tenant -> what is decided of a tenant that goes to other partitions,
	// in the first one of its list.
	KindCourse Kind = 'd'
	// KindMoving (shard): token -> a connection that goes on at the next owner.
	KindMoving Kind = 'm'
	// KindHanded (shard): tenant, name, index u16 -> a piece of a session that another
	// partition has handed over.
	KindHanded Kind = 'h'
	// KindLog (partition): n -> epoch, the newest batches again, for followers
	// that lack them.
	KindLog Kind = 'l'
	// KindState (partition): -> what a replica must not forget: State.
	KindState Kind = 'e'
	// KindTable (partition): -> the newest entry of the partition table that this
	// broker has seen, for a start without the table.
	KindTable Kind = 't'
	// KindLast (partition): -> epoch, n of the newest batch.
	KindLast Kind = 'z'
)

// ErrBadKey is returned for a key that does not have the layout of its kind.
var ErrBadKey = errors.New("partition: key has not the layout of its kind")

// Prefix is the start of every key of p, two bytes big endian.
func Prefix(dst []byte, p ID) []byte { return binary.BigEndian.AppendUint16(dst, uint16(p)) }

// Key starts a key of p and kind.
func Key(dst []byte, p ID, k Kind) []byte { return append(Prefix(dst, p), byte(k)) }

// KeyU64 is a key that ends in one number.
func KeyU64(dst []byte, p ID, k Kind, a uint64) []byte {
	return binary.BigEndian.AppendUint64(Key(dst, p, k), a)
}

// KeyU64U64 is a key of two numbers.
func KeyU64U64(dst []byte, p ID, k Kind, a, b uint64) []byte {
	return binary.BigEndian.AppendUint64(KeyU64(dst, p, k, a), b)
}

// KeyU64U16 is a key of a session and a packet identifier or a partition.
func KeyU64U16(dst []byte, p ID, k Kind, a uint64, b uint16) []byte {
	return binary.BigEndian.AppendUint16(KeyU64(dst, p, k, a), b)
}

// KeyNamed is a key of a tenant and a name: the tenant's length in one byte
// stands before it, so that no tenant is another's prefix.
func KeyNamed(dst []byte, p ID, k Kind, tenant string, name string) []byte {
	dst = append(Key(dst, p, k), byte(len(tenant)))
	return append(append(dst, tenant...), name...)
}

// SplitNamed takes a key of KeyNamed apart.
func SplitNamed(key []byte) (tenant, name string, err error) {
	if len(key) < 4 || len(key) < 4+int(key[3]) {
		return "", "", ErrBadKey
	}
	n := 4 + int(key[3])
	return string(key[4:n]), string(key[n:]), nil
}

// SplitU64 takes the number and the rest off a key of KeyU64 and its kin.
func SplitU64(key []byte) (a uint64, rest []byte, err error) {
	if len(key) < 11 {
		return 0, nil, ErrBadKey
	}
	return binary.BigEndian.Uint64(key[3:]), key[11:], nil
}

// Range is [start, end) over all keys of p and kind.
func Range(p ID, k Kind) (start, end []byte) {
	return Key(nil, p, k), Key(nil, p, k+1)
}

// RangeU64 is [start, end) over all keys of p, kind and first number a.
func RangeU64(p ID, k Kind, a uint64) (start, end []byte) {
	if a == ^uint64(0) {
		return KeyU64(nil, p, k, a), Key(nil, p, k+1)
	}
	return KeyU64(nil, p, k, a), KeyU64(nil, p, k, a+1)
}

// Last is the newest batch of a partition.
type Last struct {
	Epoch uint64
	N     uint64
}

// Before reports whether l is older than m.
func (l Last) Before(m Last) bool {
	return l.Epoch < m.Epoch || l.Epoch == m.Epoch && l.N < m.N
}

// Append encodes l.
func (l Last) Append(dst []byte) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(dst, l.Epoch), l.N)
}

// ParseLast decodes what Append wrote.
func ParseLast(b []byte) (Last, error) {
	if len(b) != 16 {
		return Last{}, ErrBadKey
	}
	return Last{Epoch: binary.BigEndian.Uint64(b), N: binary.BigEndian.Uint64(b[8:])}, nil
}

// Choose is link.Choose: gateways and brokers find a name in the same partition.
// The list must not be empty.
func Choose[T string | []byte](list []ID, name T) ID { return link.Choose(list, name) }
