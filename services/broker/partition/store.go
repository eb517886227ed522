// SPDX-License-Identifier: Apache-2.0

package partition

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/manormq/manor/infra/kv"
)

// append encodes s: version u8, epoch u64, copy u8.
func (s State) append(dst []byte) []byte {
	return append(binary.BigEndian.AppendUint64(append(dst, 1), s.Epoch), byte(s.Copy))
}

func parseState(b []byte) (State, error) {
	if len(b) != 10 || b[0] != 1 || Copy(b[9]) > Whole {
		return State{}, fmt.Errorf("state of a replica: %w", ErrBadKey)
	}
	return State{Epoch: binary.BigEndian.Uint64(b[1:]), Copy: Copy(b[9])}, nil
}

// append encodes t: revision u64, then the entry.
func (t *Table) append(dst []byte) []byte {
	return t.Entry.Append(binary.BigEndian.AppendUint64(dst, t.Revision))
}

// parseTable decodes what append wrote. What cannot be read, such as an entry that a
// later version kept, counts as none: the table itself will be read.
func parseTable(b []byte) Table {
	if len(b) < 8 {
		return Table{}
	}
	e, err := ParseEntry(b[8:])
	if err != nil {
		return Table{}
	}
	return Table{Entry: e, Revision: binary.BigEndian.Uint64(b)}
}

// Stage adds a write of partition p to b, and reports whether b must be synced
// when it is applied. A Wipe is of its own: it applies b first, then deletes in
// batches of about wipeBatch, and leaves b empty. A TrimLog applies b too:
// what it deletes may be in it.
func Stage(store kv.Store, p ID, w *Write, b *kv.Batch) (sync bool, err error) {
	switch w.Kind {
	case PutRecord:
		if err := appendBatch(b, w.Record.Batch); err != nil {
			return false, err
		}
		b.Put(Key(nil, p, KindLast), w.Record.Last.Append(nil))
		if w.Log {
			v := binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(w.Record.Batch)), w.Record.Epoch)
			b.Put(KeyU64(nil, p, KindLog, w.Record.N), append(v, w.Record.Batch...))
		}
	case PutState:
		b.Put(Key(nil, p, KindState), w.State.append(nil))
		return true, nil
	case PutPiece:
		if err := appendBatch(b, w.Batch); err != nil {
			return false, err
		}
		if w.Done {
			b.Put(Key(nil, p, KindLast), w.Record.Last.Append(nil))
		}
	case TrimLog:
		return false, trimLog(store, p, w.To, b)
	case PutTable:
		// An older one, as after a power cut, is told from a newer one by its epoch.
		if w.Table.Revision == 0 {
			b.Delete(Key(nil, p, KindTable))
		} else {
			b.Put(Key(nil, p, KindTable), w.Table.append(nil))
		}
	case Wipe:
		return false, wipe(store, p, b)
	}
	return false, nil
}

func appendBatch(b *kv.Batch, encoded []byte) error {
	var add kv.Batch
	if err := add.Decode(encoded); err != nil {
		return err
	}
	b.Append(&add)
	return nil
}

// trimLog looks for what is there, since an earlier run may have left some.
func trimLog(store kv.Store, p ID, to uint64, b *kv.Batch) error {
	if err := store.Apply(b, false); err != nil {
		return err
	}
	b.Reset()
	it := store.Scan(Key(nil, p, KindLog), KeyU64(nil, p, KindLog, to))
	defer it.Close()
	for it.Next() {
		b.Delete(it.Key())
	}
	return it.Err()
}

// wipeBatch is how many bytes of deletes are applied at once: all other writes wait
// meanwhile.
const wipeBatch = 64 << 10

// wipe deletes what p has, last of all KindLast: as long as that is there, a
// wipe that was cut short is seen.
func wipe(store kv.Store, p ID, b *kv.Batch) error {
	if err := store.Apply(b, true); err != nil {
		return err
	}
	b.Reset()
	start := Prefix(nil, p)
	it := store.Scan(start, kv.PrefixEnd(nil, start))
	defer it.Close()
	for it.Next() {
		if k := Kind(it.Key()[2]); k == KindState || k == KindTable {
			continue
		}
		b.Delete(it.Key())
		if b.Size() >= wipeBatch {
			if err := store.Apply(b, false); err != nil {
				return err
			}
			b.Reset()
		}
	}
	if err := it.Err(); err != nil {
		return err
	}
	err := store.Apply(b, false)
	b.Reset()
	return err
}

// Restore reads what store has of partition p. PowerLost is left to the caller.
func Restore(store kv.Store, p ID) (*Stored, error) {
	var s Stored
	var last Last
	v, err := store.Get(Key(nil, p, KindLast))
	if err == nil {
		last, err = ParseLast(v)
	}
	if err != nil && !errors.Is(err, kv.ErrNotFound) {
		return nil, err
	}
	switch v, err := store.Get(Key(nil, p, KindState)); {
	case err == nil:
		if s.State, err = parseState(v); err != nil {
			return nil, err
		}
	case !errors.Is(err, kv.ErrNotFound):
		return nil, err
	case last != Last{}:
		s.State.Copy = Whole // of a store from before there were replicas
	}
	switch v, err := store.Get(Key(nil, p, KindTable)); {
	case err == nil:
		s.Table = parseTable(v)
	case !errors.Is(err, kv.ErrNotFound):
		return nil, err
	}
	s.Log, err = restoreLog(store, p, last)
	return &s, err
}

// restoreLog finds the records that are kept. Of what stands before the first of
// them the epoch is not known, so the history begins with it.
func restoreLog(store kv.Store, p ID, last Last) (Log, error) {
	log := NewLog(last)
	start, end := Range(p, KindLog)
	it := store.Scan(start, end)
	defer it.Close()
	for first := true; it.Next(); first = false {
		n, _, err := SplitU64(it.Key())
		if err != nil || len(it.Value()) < 8 {
			return log, ErrBadKey
		}
		epoch := binary.BigEndian.Uint64(it.Value())
		if first && n == 1 {
			log = NewLog(Last{}) // the whole history is there
		}
		if first && n != 1 {
			log = NewLog(Last{Epoch: epoch, N: n})
			continue
		}
		if n != log.last.N+1 {
			return log, fmt.Errorf("log of partition %d: record %d stands behind %d: %w", p, n, log.last.N, ErrBadKey)
		}
		log.Add(epoch, len(it.Value())-8, segmentBytes(LogKept))
	}
	if err := it.Err(); err != nil {
		return log, err
	}
	if log.last != last {
		return log, fmt.Errorf("log of partition %d ends with %v, its state with %v: %w", p, log.last, last, ErrBadKey)
	}
	return log, nil
}

// ReadLog answers a Load of records: those of [l.From, l.To) that are there, until
// they are l.Bytes.
func ReadLog(store kv.Store, p ID, l *Load) ([]Record, error) {
	it := store.Scan(KeyU64(nil, p, KindLog, l.From), KeyU64(nil, p, KindLog, l.To))
	defer it.Close()
	var out []Record
	for size := 0; size < l.Bytes && it.Next(); {
		n, _, err := SplitU64(it.Key())
		if err != nil || len(it.Value()) < 8 {
			return nil, ErrBadKey
		}
		rec := Record{Last: Last{Epoch: binary.BigEndian.Uint64(it.Value()), N: n}, Batch: append([]byte(nil), it.Value()[8:]...)}
		if n != l.From+uint64(len(out)) {
			break
		}
		out, size = append(out, rec), size+len(rec.Batch)
	}
	return out, it.Err()
}

// Snapshot is a partition as it was at one moment. It is owned by one goroutine.
type Snapshot struct{ it kv.Iterator }

// NewSnapshot begins one.
func NewSnapshot(store kv.Store, p ID) *Snapshot {
	start := Prefix(nil, p)
	return &Snapshot{it: store.Scan(start, kv.PrefixEnd(nil, start))}
}

// Next is the next piece, a kv.Batch, encoded, of at least size bytes but for the
// last, which is done and has the record that the snapshot ends with.
func (s *Snapshot) Next(size int) (batch []byte, last Last, done bool, err error) {
	var b kv.Batch
	for b.Size() < size {
		if !s.it.Next() {
			return b.Encoded(), last, true, s.it.Err()
		}
		switch Kind(s.it.Key()[2]) {
		case KindLog, KindState, KindTable:
		case KindLast:
			if last, err = ParseLast(s.it.Value()); err != nil {
				return nil, last, false, err
			}
		default:
			b.Put(s.it.Key(), s.it.Value())
		}
	}
	return b.Encoded(), last, false, nil
}

// Close ends the snapshot.
func (s *Snapshot) Close() { s.it.Close() }
