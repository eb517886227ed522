// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/partition"
)

// BodyThreshold is the size in bytes above which a message for two or more
// stored sessions of a partition is stored once.
const BodyThreshold = 1 << 10

// Space is what the queues of one partition share: the store and the bodies.
type Space struct {
	store kv.Store
	part  partition.ID
	// counts says how many stored entries refer to a body.
	counts map[uint64]uint32
	// held are the bodies that were put and not settled: their counts are not stored yet.
	held []uint64
	buf  []byte
}

// NewSpace makes the Space of a partition.
func NewSpace(store kv.Store, part partition.ID) *Space {
	return &Space{store: store, part: part, counts: make(map[uint64]uint32)}
}

// Restore reads the counts of the bodies.
func (s *Space) Restore() error {
	start, end := partition.Range(s.part, partition.KindBodyCount)
	it := s.store.Scan(start, end)
	defer it.Close()
	for it.Next() {
		id, _, err := partition.SplitU64(it.Key())
		if err != nil || len(it.Value()) != 4 {
			return fmt.Errorf("body count of partition %d: %w", s.part, errEntry)
		}
		s.counts[id] = binary.BigEndian.Uint32(it.Value())
	}
	return it.Err()
}

// PutBody stores m under id, for entries appended in the same batch. It is held
// until Settle, whatever becomes of the entries meanwhile.
func (s *Space) PutBody(b *kv.Batch, id uint64, m *mqtt.Message) {
	s.buf = AppendMessage(s.buf[:0], m)
	b.Put(partition.KeyU64(nil, s.part, partition.KindBody, id), s.buf)
	s.counts[id] = 1
	s.held = append(s.held, id)
}

// Settle ends the hold of PutBody, in the batch of which the entries are: a body that no
// entry refers to goes.
func (s *Space) Settle(b *kv.Batch, id uint64) {
	if i := slices.Index(s.held, id); i >= 0 {
		s.held = slices.Delete(s.held, i, i+1)
	}
	s.refer(b, id, -1)
}

func (s *Space) refer(b *kv.Batch, id uint64, by int32) {
	n := uint32(int64(s.counts[id]) + int64(by))
	if slices.Contains(s.held, id) {
		s.counts[id] = n // Settle stores it, once
		return
	}
	key := partition.KeyU64(make([]byte, 0, 11), s.part, partition.KindBodyCount, id)
	if n == 0 {
		delete(s.counts, id)
		b.Delete(key)
		b.Delete(partition.KeyU64(make([]byte, 0, 11), s.part, partition.KindBody, id))
		return
	}
	s.counts[id] = n
	b.Put(key, binary.BigEndian.AppendUint32(nil, n))
}

// get reads one stored entry with its message.
func (s *Space) get(sid, seq uint64) (*Entry, error) {
	v, err := s.store.Get(partition.KeyU64U64(nil, s.part, partition.KindQueue, sid, seq))
	if err != nil {
		return nil, fmt.Errorf("queue entry %d of session %d: %w", seq, sid, err)
	}
	return s.parse(seq, v)
}

func (s *Space) parse(seq uint64, v []byte) (*Entry, error) {
	e, err := parseEntry(v)
	if err != nil {
		return nil, err
	}
	e.Seq = seq
	if e.body != 0 {
		bv, err := s.store.Get(partition.KeyU64(nil, s.part, partition.KindBody, e.body))
		if err != nil {
			return nil, fmt.Errorf("body %d: %w", e.body, err)
		}
		if e.Message, err = ParseMessage(bv); err != nil {
			return nil, err
		}
	}
	return &e, nil
}
