// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"bytes"
	"encoding/binary"

	"github.com/manormq/manor/services/broker/swc"
)

// Value is what stands under a key. Of concurrent values the one with the highest
// Rank is seen, of equal ranks that of the greater dot, which is the greater actor.
// The choice depends on the values alone, so all brokers make the same one.
//
// For routes the rank is the epoch of the partition: it has one writer per epoch,
// and the later one is right. For settings it is a revision: with the Rank of a
// Mutation left 0 it is one above that of the value that is replaced.
type Value struct {
	Rank  uint64
	Bytes []byte
}

func (v Value) append(dst []byte) []byte {
	return append(binary.BigEndian.AppendUint64(dst, v.Rank), v.Bytes...)
}

func (v Value) equal(w Value) bool { return v.Rank == w.Rank && bytes.Equal(v.Bytes, w.Bytes) }

// seen returns the value of an object that is seen; ok is false if it has none.
func seen(c swc.Container) (v Value, ok bool) {
	for _, x := range c.Versions { // in the order of the dots
		if len(x.Value) < 8 {
			continue // not written by us
		}
		if rank := binary.BigEndian.Uint64(x.Value); !ok || rank >= v.Rank {
			v, ok = Value{rank, x.Value[8:]}, true
		}
	}
	return v, ok
}

// Change says that what is seen under a key is another. Old and New are nil where
// there is no value; they are not to be changed.
type Change struct {
	Key      Key
	Old, New *Value
}
