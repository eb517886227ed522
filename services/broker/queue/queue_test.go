// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/infra/kv/leveldb"
	"github.com/manormq/manor/infra/kv/mem"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/partition"
)

// subject is a queue under random operations, with what it must hold.
type subject struct {
	t       *testing.T
	store   kv.Store
	space   *Space
	q       *Queue
	durable bool
	// lifo: what comes is pushed, but for a third.
	lifo  bool
	batch kv.Batch
	body  uint64

	waiting []string
	flying  map[uint64]string
	order   []uint64
}

func payload(r *rand.Rand, n int) string {
	return fmt.Sprintf("%d:%s", n, strings.Repeat("x", []int{10, 100, 2000, 40000}[r.IntN(4)]))
}

// Random appends, takes, releases, commits and restarts give back what went in,
// in order, whatever the store, and nothing is left behind.
func TestQueueMetamorphic(t *testing.T) {
	for i := range 16 {
		durable, lifo, seed := i&1 != 0, i&2 != 0, uint64(i>>2)
		{
			t.Run(fmt.Sprintf("durable=%v/lifo=%v/seed=%d", durable, lifo, seed), func(t *testing.T) {
				stores := map[string]kv.Store{"mem": mem.New()}
				ldb, err := leveldb.Open(t.TempDir(), leveldb.Options{})
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = ldb.Close() }()
				stores["leveldb"] = ldb
				for name, store := range stores {
					t.Run(name, func(t *testing.T) {
						(&subject{t: t, store: store, durable: durable, lifo: lifo, flying: map[uint64]string{}}).play(rand.New(rand.NewPCG(seed, 9)))
					})
				}
			})
		}
	}
}

func (s *subject) play(r *rand.Rand) {
	s.space = NewSpace(s.store, 3)
	s.q = New(s.space, 42, s.durable)
	for i := range 1500 {
		switch r.IntN(10) {
		case 0, 1, 2, 3:
			s.append(r, payload(r, i), r.IntN(3) == 0)
		case 4, 5, 6:
			s.take()
		case 7:
			s.release(r)
			for s.durable && s.q.Len() > 0 && r.IntN(8) > 0 {
				s.commit()
				s.take()
			}
			if s.durable && s.q.Len() == 0 {
				s.pass(r, payload(r, i))
			}
		case 8:
			s.commit()
			s.export()
			if r.IntN(3) == 0 {
				s.q.Rest()
			}
		case 9:
			if r.IntN(10) == 0 && s.durable {
				s.restart()
			} else if r.IntN(2) == 0 {
				s.dropBack()
			}
		}
		if int(s.q.Len()) != len(s.waiting) {
			s.t.Fatalf("step %d: %d wait, expected %d", i, s.q.Len(), len(s.waiting))
		}
	}
	s.commit()
	for len(s.waiting) > 0 {
		s.take()
	}
	s.commit()
	for _, seq := range s.order {
		if e, err := s.q.Reload(seq); s.durable && (err != nil || string(e.Message.Payload) != s.flying[seq]) {
			s.t.Fatalf("reload %d: %v", seq, err)
		}
	}
	if s.durable && r.IntN(2) == 0 {
		for _, seq := range s.order {
			if s.q.Inside(seq) { // what a session deletes of its deliveries
				s.batch.Delete(DeliveryKey(nil, 3, 42, uint16(seq)+1))
			}
		}
		if err := s.q.Wipe(&s.batch); err != nil {
			s.t.Fatal(err)
		}
	} else {
		for _, seq := range s.order {
			s.free(seq)
		}
	}
	s.commit()
	it := s.store.Scan(nil, nil)
	defer it.Close()
	for it.Next() {
		s.t.Errorf("left behind: %x", it.Key())
	}
	if len(s.space.counts) != 0 {
		s.t.Errorf("bodies left: %v", s.space.counts)
	}
}

func (s *subject) append(r *rand.Rand, p string, shared bool) {
	m := &mqtt.Message{Topic: []byte("t"), Payload: []byte(p)}
	var body uint64
	if shared && s.durable {
		s.body++
		body = s.body
		s.space.PutBody(&s.batch, body, m)
		defer s.space.Settle(&s.batch, body)
	}
	e := &Entry{Message: m, QoS: 1, IDs: []uint32{7, 300}}
	if !s.lifo || r.IntN(3) == 0 {
		s.q.Append(e, body, &s.batch)
		s.waiting = append(s.waiting, p)
		return
	}
	s.q.Push(e, body, &s.batch, func(f func(uint64)) {
		for _, seq := range s.order {
			f(seq)
		}
	})
	s.waiting = slices.Insert(s.waiting, 0, p)
}

// pass hands a message over without storing it, and has half of them kept after
// all.
func (s *subject) pass(r *rand.Rand, p string) {
	e := &Entry{Message: &mqtt.Message{Topic: []byte("t"), Payload: []byte(p)}, QoS: 1}
	s.q.Pass(e)
	if r.IntN(2) == 0 {
		if packet := uint16(e.Seq) + 1; r.IntN(4) == 0 {
			s.q.KeepApart(e, &s.batch)
		} else {
			s.batch.Put(DeliveryKey(nil, 3, 42, packet), s.q.Keep(e, packet, make([]byte, DeliveryHead)))
		}
		s.flying[e.Seq] = p
		s.order = append(s.order, e.Seq)
	}
}

func (s *subject) take() {
	e, err := s.q.Head()
	if err != nil {
		s.t.Fatal(err)
	}
	if e == nil {
		if len(s.waiting) > 0 && !s.q.Waits() {
			s.t.Fatal("the head neither comes nor waits for a commit")
		}
		return
	}
	if string(e.Message.Payload) != s.waiting[0] || !slices.Equal(e.IDs, []uint32{7, 300}) {
		s.t.Fatalf("head is %.20q, expected %.20q", e.Message.Payload, s.waiting[0])
	}
	s.q.Take(false, &s.batch)
	s.flying[e.Seq] = s.waiting[0]
	s.order = append(s.order, e.Seq)
	s.waiting = s.waiting[1:]
}

func (s *subject) dropBack() {
	e, ok := s.q.DropBack(&s.batch)
	if ok != (len(s.waiting) > 0) {
		s.t.Fatalf("dropped %v of %d", ok, len(s.waiting))
	}
	if !ok {
		return
	}
	if last := s.waiting[len(s.waiting)-1]; string(e.Message.Payload) != last {
		s.t.Fatalf("dropped %.20q, expected %.20q", e.Message.Payload, last)
	}
	s.waiting = s.waiting[:len(s.waiting)-1]
}

func (s *subject) release(r *rand.Rand) {
	if len(s.order) == 0 {
		return
	}
	i := r.IntN(len(s.order))
	s.free(s.order[i])
	delete(s.flying, s.order[i])
	s.order = slices.Delete(s.order, i, i+1)
}

// free acknowledges a delivery, as a session would.
func (s *subject) free(seq uint64) {
	if s.q.Inside(seq) {
		s.batch.Delete(DeliveryKey(nil, 3, 42, uint16(seq)+1))
	}
	s.q.Release(seq, &s.batch)
}

// export holds that Each has all that waits, as AppendWhole writes it, and takes none.
func (s *subject) export() {
	var got []string
	err := s.q.Each(func(e *Entry) error {
		out, err := ParseEntry(AppendWhole(nil, e))
		if err == nil {
			got = append(got, string(out.Message.Payload))
		}
		return err
	})
	if err != nil || !slices.Equal(got, s.waiting) {
		s.t.Fatalf("exported %d entries, %v, expected %d", len(got), err, len(s.waiting))
	}
}

func (s *subject) commit() {
	if err := s.store.Apply(&s.batch, false); err != nil {
		s.t.Fatal(err)
	}
	s.batch.Reset()
	s.q.Committed(s.q.Submitted())
}

// restart makes the queue anew from the store.
func (s *subject) restart() {
	s.commit()
	next := s.q.Next()
	inside := make(map[uint64]bool)
	for _, seq := range s.order {
		inside[seq] = s.q.Inside(seq)
	}
	s.space = NewSpace(s.store, 3)
	if err := s.space.Restore(); err != nil {
		s.t.Fatal(err)
	}
	s.q = New(s.space, 42, true)
	start, end := partition.RangeU64(3, partition.KindQueue, 42)
	it := s.store.Scan(start, end)
	defer it.Close()
	for it.Next() {
		_, rest, err := partition.SplitU64(it.Key())
		if err != nil {
			s.t.Fatal(err)
		}
		_, flying := s.flying[be64(rest)]
		if err := s.q.RestoreEntry(be64(rest), it.Value(), flying); err != nil {
			s.t.Fatal(err)
		}
	}
	for _, seq := range s.order {
		if inside[seq] {
			s.q.RestoreInside(seq, uint16(seq)+1)
		}
	}
	s.q.Restored(next)
}

// What was never stored costs nothing when the session ends.
func TestQueue_WipeAfterPassing(t *testing.T) {
	var b kv.Batch
	q := New(NewSpace(mem.New(), 3), 42, true)
	m := &mqtt.Message{Topic: []byte("t"), Payload: []byte("x")}
	for range 100_000 {
		q.Pass(&Entry{Message: m, QoS: 1})
	}
	q.Append(&Entry{Message: m, QoS: 1}, 0, &b)
	q.Take(false, &b)
	for range 1_000 { // the batch of the Append is still open
		q.Pass(&Entry{Message: m, QoS: 1})
	}
	b.Reset()
	if err := q.Wipe(&b); err != nil {
		t.Fatal(err)
	}
	if b.Len() != 1 {
		t.Errorf("%d deletes for one entry that may be in the store", b.Len())
	}
}

// A queue that was long keeps nothing of that once its client is away.
func TestQueue_RestLetsGo(t *testing.T) {
	var b kv.Batch
	q := New(NewSpace(mem.New(), 3), 42, true)
	for range 400 {
		q.Append(&Entry{Message: &mqtt.Message{Topic: []byte("t")}, QoS: 1}, 0, &b)
	}
	for range 400 {
		q.Drop(&b)
	}
	if q.Rest(); cap(q.mem) != 0 {
		t.Errorf("%d places are kept for entries", cap(q.mem))
	}
	q.Append(&Entry{Message: &mqtt.Message{Topic: []byte("t")}, QoS: 1}, 0, &b)
	if q.Rest(); len(q.mem) != 1 {
		t.Errorf("%d entries wait, expected 1", len(q.mem))
	}
}

func FuzzParseEntry(f *testing.F) {
	m := &mqtt.Message{Topic: []byte("a/b"), Payload: []byte("x"), Properties: []byte{1, 1}}
	f.Add(appendEntry(nil, &Entry{Message: m, QoS: 1, IDs: []uint32{1}, Group: "$share/g/a", ExpireAt: 5}))
	f.Add(appendEntry(nil, &Entry{Message: m, body: 9}))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := parseEntry(b)
		if err != nil || e.Message == nil {
			return
		}
		again, err := parseEntry(appendEntry(nil, &e))
		if err != nil || string(again.Message.Payload) != string(e.Message.Payload) || again.QoS != e.QoS || again.Group != e.Group {
			t.Fatalf("%+v became %+v, %v", e, again, err)
		}
	})
}
