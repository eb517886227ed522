// SPDX-License-Identifier: Apache-2.0

package partition

import (
	"math/rand/v2"
	"testing"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/infra/kv/mem"
)

// A Log says of every (epoch, n) what a list of all records says.
func TestLog_AgainstAList(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 0))
		log, list, sizes := NewLog(Last{}), []Last{{}}, []int{0}
		epoch, first := uint64(1), 0 // first is where the list is kept from
		for range 300 {
			switch r.IntN(20) {
			case 0:
				epoch += uint64(1 + r.IntN(2))
			case 1:
				keep, floor := r.IntN(2000), uint64(r.IntN(len(list)))
				before := log.base
				log.Trim(keep, floor)
				if log.base.N > max(floor, before.N) {
					t.Fatalf("seed %d: trimmed to %d, above %d", seed, log.base.N, floor)
				}
				first = int(log.base.N)
			default:
				size := r.IntN(100)
				list, sizes = append(list, log.Add(epoch, size, 125)), append(sizes, size)
			}
			total := 0
			for _, s := range sizes[first+1:] {
				total += s
			}
			if total != log.Bytes() || log.Last() != list[len(list)-1] {
				t.Fatalf("seed %d: %d bytes up to %v, expected %d up to %v", seed, log.Bytes(), log.Last(), total, list[len(list)-1])
			}
			n := r.IntN(len(list) + 3)
			for _, e := range []uint64{epoch, epoch - 1, list[min(n, len(list)-1)].Epoch} {
				at := Last{Epoch: e, N: uint64(n)}
				if want := n >= first && n < len(list) && list[n] == at; log.Has(at) != want {
					t.Fatalf("seed %d: Has(%v) is %v, expected %v", seed, at, log.Has(at), want)
				}
			}
		}
	}
}

// What is staged is found again: the log, the state, and the batches in snapshots.
func TestStore(t *testing.T) {
	store := mem.New()
	const p = ID(3)
	stage := func(w Write) {
		t.Helper()
		var b kv.Batch
		sync, err := Stage(store, p, &w, &b)
		if err == nil {
			err = store.Apply(&b, sync)
		}
		if err != nil {
			t.Fatal(err)
		}
		if sync != (w.Kind == PutState) {
			t.Errorf("write %d: sync is %v", w.Kind, sync)
		}
	}
	restore := func() *Stored {
		t.Helper()
		s, err := Restore(store, p)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if s := restore(); s.State != (State{}) || s.Log.Last() != (Last{}) {
		t.Errorf("an empty store has %+v", s)
	}
	record := func(epoch, n uint64) Record {
		var b kv.Batch
		b.Put(KeyU64(nil, p, KindQueue, n), []byte{byte(n)})
		return Record{Last{epoch, n}, b.Encoded()}
	}
	stage(Write{Kind: PutState, State: State{Epoch: 2, Copy: Whole}})
	for n := range uint64(10) {
		stage(Write{Kind: PutRecord, Log: true, Record: record(2+n/6, n+1)})
	}
	s := restore()
	if s.State != (State{2, Whole}) || s.Log.Last() != (Last{3, 10}) || !s.Log.Has(Last{2, 6}) || s.Log.Has(Last{3, 6}) || !s.Log.Has(Last{}) {
		t.Errorf("restored %+v", s)
	}
	stage(Write{Kind: TrimLog, To: 4})
	if s := restore(); s.Log.Has(Last{2, 3}) || !s.Log.Has(Last{2, 4}) {
		t.Errorf("trimmed %+v", s)
	}
	records, err := ReadLog(store, p, &Load{From: 5, To: 9, Bytes: 1 << 20})
	if err != nil || len(records) != 4 || records[0].Last != (Last{2, 5}) || records[3].Last != (Last{3, 8}) {
		t.Errorf("read %v, %v", records, err)
	}
	if records, err = ReadLog(store, p, &Load{From: 2, To: 9, Bytes: 1 << 20}); err != nil || len(records) != 0 {
		t.Errorf("read %d records from a gap, %v", len(records), err)
	}
	if records, err = ReadLog(store, p, &Load{From: 5, To: 9, Bytes: 1}); err != nil || len(records) != 1 {
		t.Errorf("read %d records for one byte, %v", len(records), err)
	}
	// A snapshot in pieces makes the same partition elsewhere.
	from := NewSnapshot(store, p)
	stage(Write{Kind: PutRecord, Record: record(3, 11)}) // which it does not have
	other := mem.New()
	store = other
	stage(Write{Kind: PutState, State: State{Epoch: 3, Copy: Fetching}})
	pieces := 0
	for done := false; !done; pieces++ {
		w := Write{Kind: PutPiece}
		if w.Batch, w.Record.Last, done, err = from.Next(20); err != nil {
			t.Fatal(err)
		}
		w.Done = done
		stage(w)
	}
	from.Close()
	if s := restore(); s.Log.Last() != (Last{3, 10}) || s.State.Copy != Fetching || pieces < 3 {
		t.Errorf("%d pieces make %+v", pieces, s)
	}
	stage(Write{Kind: Wipe})
	if s := restore(); s.Log.Last() != (Last{}) || s.State != (State{3, Fetching}) {
		t.Errorf("wiped: %+v", s)
	}
	// A store from before there were replicas is whole.
	stage(Write{Kind: Wipe})
	store = mem.New()
	stage(Write{Kind: PutRecord, Record: record(1, 5)})
	if s := restore(); s.State != (State{0, Whole}) || s.Log.Last() != (Last{1, 5}) {
		t.Errorf("an old store has %+v", s)
	}
}

// A log that is trimmed in the same batch in which it was written is gone: what was
// left of it would stand before the records that follow without one.
func TestStage_TrimsWhatIsStaged(t *testing.T) {
	store := mem.New()
	const p = ID(3)
	var b kv.Batch
	for _, w := range []Write{
		{Kind: PutRecord, Record: Record{Last: Last{1, 1}}, Log: true},
		{Kind: PutRecord, Record: Record{Last: Last{1, 2}}, Log: true},
		{Kind: TrimLog, To: 3},
		{Kind: PutRecord, Record: Record{Last: Last{2, 3}}},
	} {
		if _, err := Stage(store, p, &w, &b); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.Apply(&b, true); err != nil {
		t.Fatal(err)
	}
	s, err := Restore(store, p)
	if err != nil {
		t.Fatal(err)
	}
	if s.Log.Last() != (Last{2, 3}) || s.Log.Bytes() != 0 {
		t.Errorf("the log ends with %v and has %d bytes, expected {2 3} and none", s.Log.Last(), s.Log.Bytes())
	}
}
