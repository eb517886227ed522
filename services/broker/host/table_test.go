// SPDX-License-Identifier: Apache-2.0

package host_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manormq/manor/infra/bus"
	busmem "github.com/manormq/manor/infra/bus/mem"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/services/broker/host"
	"github.com/manormq/manor/services/broker/partition"
)

// swapped is a bucket that can be another one of the same name.
type swapped struct {
	bus.Bucket
	mu  sync.Mutex
	now bus.Bucket
}

func (s *swapped) bucket() bus.Bucket {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

func (s *swapped) Put(ctx context.Context, key string, value []byte, at bus.Revision) (bus.Revision, error) {
	return s.bucket().Put(ctx, key, value, at)
}

func (s *swapped) Watch(ctx context.Context, w bus.Watch, f func(bus.Update)) error {
	return s.bucket().Watch(ctx, w, f)
}

func TestBucketTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := busmem.New()
		bucket := func(name string) bus.Bucket {
			k, err := b.Bucket(t.Context(), bus.BucketConfig{Name: name})
			if err != nil {
				t.Fatal(err)
			}
			return k
		}
		s := &swapped{now: bucket("one")}
		table, other := host.NewBucketTable(s, telemetry.Discard()), host.NewBucketTable(bucket("one"), telemetry.Discard())
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		var mu sync.Mutex
		var seen []partition.Table
		synced := false
		go func() {
			ended <- table.Watch(ctx, func(p partition.ID, e partition.Table) {
				mu.Lock()
				defer mu.Unlock()
				if p == 3 {
					seen = append(seen, e)
				}
			}, func() { synced = true })
		}()
		synctest.Wait()
		if !synced {
			t.Fatal("the watch is not told to have begun")
		}
		entry := partition.Entry{Epoch: 1, Owner: "a", InSync: []partition.Broker{"a"}}
		propose := func(at uint64, want partition.Outcome) partition.Table {
			t.Helper()
			entry.Epoch++
			got, outcome := other.Propose(ctx, 3, partition.Proposal{At: at, Entry: entry})
			if outcome != want {
				t.Fatalf("outcome is %d, expected %d", outcome, want)
			}
			return got
		}
		first := propose(0, partition.Won)
		propose(0, partition.Beaten)
		propose(first.Revision+7, partition.Beaten)
		second := propose(first.Revision, partition.Won)
		fresh := func() error {
			call, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			return table.Fresh(call)
		}
		if err := fresh(); err != nil || table.Entry(3).Revision != second.Revision || table.Entry(3).Epoch != second.Epoch {
			t.Fatalf("a fresh read: %+v, error %v, expected %+v", table.Entry(3), err, second)
		}
		b.SetDown(true)
		propose(second.Revision, partition.Untaken)
		if fresh() == nil {
			t.Fatal("a fresh read while the bus is away")
		}
		b.SetDown(false)
		if err := fresh(); err != nil {
			t.Fatal(err)
		}

		// The bucket is another one, without the entry.
		s.mu.Lock()
		s.now = bucket("two")
		s.mu.Unlock()
		if fresh() == nil {
			t.Fatal("a fresh read of a bucket that went back")
		}
		synctest.Wait()
		if err := fresh(); err != nil || table.Entry(3).Revision != 0 {
			t.Fatalf("a fresh read of the new bucket: %+v, error %v", table.Entry(3), err)
		}
		mu.Lock()
		if n := len(seen); n < 2 || seen[n-2].Revision != second.Revision || seen[n-1].Revision != 0 {
			t.Errorf("seen: %+v", seen)
		}
		mu.Unlock()
		cancel()
		if err := <-ended; err == nil {
			t.Error("the watch ends without an error")
		}
	})
}
