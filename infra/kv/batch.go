// SPDX-License-Identifier: Apache-2.0

package kv

import (
	"encoding/binary"
	"fmt"
)

// The first byte of an entry. The encoding of a batch is the one that LevelDB
// journals use for a record, so that kv/leveldb hands it over without a copy:
//
//	put     0x01 | len uvarint | key | len uvarint | value
//	delete  0x00 | len uvarint | key
const (
	entryDelete byte = 0
	entryPut    byte = 1
)

// Batch collects writes for Store.Apply. The zero Batch is empty and ready. It
// copies what it is given into one buffer, and after Reset uses that buffer
// again, so that a batch in steady use does not allocate. A Batch is owned by
// one goroutine at a time.
type Batch struct {
	data  []byte
	count int
}

// Put stores value under key.
func (b *Batch) Put(key, value []byte) {
	b.key(entryPut, key)
	b.data = binary.AppendUvarint(b.data, uint64(len(value)))
	b.data = append(b.data, value...)
}

// Delete removes key. It is no error if nothing is stored under it.
func (b *Batch) Delete(key []byte) { b.key(entryDelete, key) }

func (b *Batch) key(kind byte, key []byte) {
	b.data = append(b.data, kind)
	b.data = binary.AppendUvarint(b.data, uint64(len(key)))
	b.data = append(b.data, key...)
	b.count++
}

// Append adds the writes of other behind those of b, with one copy of its
// bytes. other stays as it is.
func (b *Batch) Append(other *Batch) {
	b.data = append(b.data, other.data...)
	b.count += other.count
}

// Len is the number of writes.
func (b *Batch) Len() int { return b.count }

// Size is the number of bytes that the writes take, keys, values and a few
// bytes for each.
func (b *Batch) Size() int { return len(b.data) }

// Reset empties b and keeps its memory.
func (b *Batch) Reset() { b.data, b.count = b.data[:0], 0 }

// Encoded is the batch as bytes, for a log. It is a view, valid until b is next
// changed.
func (b *Batch) Encoded() []byte { return b.data }

// Decode sets b to a copy of encoded, which came from Encoded. It returns an
// error that wraps ErrCorrupt, and leaves b empty, if encoded is no batch.
func (b *Batch) Decode(encoded []byte) error {
	b.Reset()
	count := 0
	for rest := encoded; len(rest) > 0; count++ {
		var ok bool
		if _, _, _, rest, ok = entry(rest); !ok {
			return fmt.Errorf("%w: entry %d of a batch of %d bytes does not parse", ErrCorrupt, count, len(encoded))
		}
	}
	b.data, b.count = append(b.data, encoded...), count
	return nil
}

// Each calls f for every write in order; value is nil for a Delete. The slices
// are views, valid until b is next changed; f must not change b.
func (b *Batch) Each(f func(put bool, key, value []byte)) {
	for rest := b.data; len(rest) > 0; {
		var put, ok bool
		var key, value []byte
		if put, key, value, rest, ok = entry(rest); !ok {
			return // not reached: only Put, Delete, Append and Decode write data
		}
		f(put, key, value)
	}
}

// entry splits the first write off data.
func entry(data []byte) (put bool, key, value, rest []byte, ok bool) {
	kind := data[0]
	if kind > entryPut {
		return false, nil, nil, nil, false
	}
	if key, rest, ok = prefixed(data[1:]); !ok || kind == entryDelete {
		return false, key, nil, rest, ok
	}
	value, rest, ok = prefixed(rest)
	return true, key, value, rest, ok
}

// prefixed splits a length and that many bytes off data.
func prefixed(data []byte) (field, rest []byte, ok bool) {
	n, w := binary.Uvarint(data)
	if w <= 0 || n > uint64(len(data)-w) {
		return nil, nil, false
	}
	end := w + int(n)
	return data[w:end:end], data[end:], true
}
