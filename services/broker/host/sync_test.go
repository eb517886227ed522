// SPDX-License-Identifier: Apache-2.0

package host_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/services/broker/host"
	"github.com/manormq/manor/services/broker/partition"
)

// sluggish is a store whose syncs take as long as is wanted.
type sluggish struct {
	kv.Store
	takes atomic.Int64 // of a time.Duration
	syncs atomic.Int64
}

func (s *sluggish) Apply(b *kv.Batch, sync bool) error {
	if err := s.Store.Apply(b, false); err != nil || !sync {
		return err
	}
	s.syncs.Add(1)
	time.Sleep(time.Duration(s.takes.Load()))
	return nil
}

// inSluggish has the store of b1 sync slowly, every 20 ms.
func inSluggish(t *testing.T, f func(b *bubble, s *sluggish)) {
	inBubble(t, []string{"b1", "b2"}, func(b *bubble) {
		b.stops["b1"]()
		s := &sluggish{Store: b.stores["b1"]}
		b.stores["b1"] = s
		b.tweak = func(c *host.Config) { c.Sync = partition.Sync{Every: 20 * time.Millisecond} }
		b.start("b1")
		b.eventually("served and in sync", b.settled)
		f(b, s)
	})
}

// A commit waits for no sync: neither at the owner nor at its follower.
func TestHost_CommitsWhileItSyncs(t *testing.T) {
	inSluggish(t, func(b *bubble, s *sluggish) {
		s.takes.Store(int64(10 * time.Second))
		var begun time.Time
		for p := range partition.ID(few) {
			begun = time.Now()
			for range 3 { // the first has a sync begin
				if err := b.append(b.owner(p), p, 1); err != nil {
					t.Fatal(err)
				}
				time.Sleep(50 * time.Millisecond)
			}
			if took := time.Since(begun); took > time.Second {
				t.Errorf("appends to partition %d of %s took %v", p, b.owner(p), took)
			}
		}
		if s.syncs.Load() == 0 {
			t.Error("nothing was synced")
		}
		s.takes.Store(0)
	})
}

// An epoch counts when it is synced: until then its replica neither serves nor answers an
// owner under it, and others are not held up by that.
func TestHost_EpochWaitsForItsSync(t *testing.T) {
	inSluggish(t, func(b *bubble, s *sluggish) {
		own, theirs := partition.ID(few), partition.ID(few)
		b.eventually("both own something", func() bool {
			own, theirs = few, few
			for p := range partition.ID(few) {
				if b.owner(p) == "b1" {
					own = p
				} else {
					theirs = p
				}
			}
			return own != few && theirs != few
		})
		time.Sleep(15 * time.Second) // an owner that is new keeps what it has for a while
		const takes = 1500 * time.Millisecond
		s.takes.Store(int64(takes))
		before := b.hosts["b1"].Entry(theirs).Table.Epoch
		b.hosts["b2"].SetStopping(true) // so that b1 is to own all
		b.eventually("b1 owns it", func() bool { return b.hosts["b1"].Entry(theirs).Table.Owner == "b1" })
		seen := time.Now()
		if err := b.append("b1", own, 7); err != nil || time.Since(seen) > takes/3 {
			t.Errorf("an append to another partition: %v after %v", err, time.Since(seen))
		}
		b.eventually("b1 serves it", func() bool { return b.hosts["b1"].Entry(theirs).Serving })
		if took := time.Since(seen); took < takes/2 || b.hosts["b1"].Entry(theirs).Table.Epoch <= before {
			t.Errorf("it was served %v after it was owned, before its epoch was synced", took)
		}
		s.takes.Store(0)
		synctest.Wait()
	})
}
