// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/manormq/manor/infra/bus"
	busmem "github.com/manormq/manor/infra/bus/mem"
	"github.com/manormq/manor/infra/kv"
	kvmem "github.com/manormq/manor/infra/kv/mem"
	"github.com/manormq/manor/services/broker/member"
	"github.com/manormq/manor/services/broker/placement"
)

// newStore is one of a broker that is about to join.
func newStore(t *testing.T) kv.Store {
	t.Helper()
	s := kvmem.New()
	var b kv.Batch
	b.Put(newKey, nil)
	if err := s.Apply(&b, true); err != nil {
		t.Fatal(err)
	}
	return s
}

// A name that was given up is free for a store that was never a member's, once: a store
// that was one stays out, with its own tombstone or that of the one that came after it.
func TestComeBack(t *testing.T) {
	control := busmem.New()
	beats := later(control, beatsBucket)
	come := func(s kv.Store) error {
		return comeBack(s, beats, "b1", "partitions=16 reserved=0", slog.New(slog.DiscardHandler))
	}
	leave := func() {
		t.Helper()
		beat := placement.Beat{Count: 1}
		if _, err := beats.Put(t.Context(), placement.BeatKey("b1"), beat.Append(nil), bus.Any); err != nil {
			t.Fatal(err)
		}
		if err := member.Leave(t.Context(), beats, "b1"); err != nil {
			t.Fatal(err)
		}
	}
	first := newStore(t)
	for range 2 { // the first start, and one again
		if err := come(first); err != nil {
			t.Fatal(err)
		}
	}
	leave()
	for range 2 {
		if err := come(first); !errors.Is(err, errRetired) {
			t.Fatalf("with what it had it starts: %v", err)
		}
	}
	second := newStore(t)
	if err := come(second); err != nil {
		t.Fatal(err)
	}
	if left, err := member.Left(t.Context(), beats, "b1"); err != nil || left != nil {
		t.Errorf("the tombstone is still there: %v, %v", left, err)
	}
	if err := come(first); !errors.Is(err, errReplaced) {
		t.Errorf("the first one starts beside the second: %v", err)
	}
	leave()
	if err := come(second); !errors.Is(err, errRetired) {
		t.Errorf("the second one was given up too, and starts: %v", err)
	}
}

// A broker whose disk was lost has its name with an empty one, whether it was given up or
// not; the old disk stays out.
func TestComeBack_DiskLost(t *testing.T) {
	beats := later(busmem.New(), beatsBucket)
	come := func(s kv.Store) error {
		return comeBack(s, beats, "b1", "partitions=16 reserved=0", slog.New(slog.DiscardHandler))
	}
	old, empty := newStore(t), newStore(t)
	for i, s := range []kv.Store{old, empty, empty} {
		if err := come(s); err != nil {
			t.Fatalf("start %d: %v", i, err)
		}
	}
	if err := come(old); !errors.Is(err, errReplaced) {
		t.Errorf("the old disk is taken: %v", err)
	}
}

// A broker that counts the partitions differently does not start: the first one has said
// how many there are. One of before that was said says it for the others.
func TestComeBack_OtherShape(t *testing.T) {
	beats := later(busmem.New(), beatsBucket)
	log := slog.New(slog.DiscardHandler)
	come := func(s kv.Store, name, shape string) error { return comeBack(s, beats, name, shape, log) }
	first := newStore(t)
	if err := come(first, "b1", "partitions=16 reserved=4"); err != nil {
		t.Fatal(err)
	}
	if err := come(newStore(t), "b2", "partitions=16 reserved=0"); err == nil || !strings.Contains(err.Error(), "partitions=16 reserved=4: set") {
		t.Errorf("another number of reserved partitions: %v", err)
	}
	if err := beats.Delete(t.Context(), shapeKey, bus.Any); err != nil {
		t.Fatal(err)
	}
	if err := come(first, "b1", "partitions=16 reserved=4"); err != nil {
		t.Error(err)
	}
	if err := come(newStore(t), "b2", "partitions=32 reserved=4"); err == nil {
		t.Error("another number of partitions is taken")
	}
	if err := come(newStore(t), "b2", "partitions=16 reserved=4"); err != nil {
		t.Error(err)
	}
}
