// SPDX-License-Identifier: Apache-2.0

package host_test

import (
	"bytes"
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/infra/kv/faulty"
	"github.com/manormq/manor/infra/kv/mem"
	"github.com/manormq/manor/services/broker/host"
	"github.com/manormq/manor/services/broker/partition"
)

// With the bus away for ten minutes everything goes on, and its return is no reason
// to change anything.
func TestHost_BusAway(t *testing.T) {
	inBubble(t, []string{"a", "b", "c"}, func(b *bubble) {
		time.Sleep(time.Minute) // what was planned at the start is done
		before := b.changed()
		for tag := range uint64(600) {
			if tag == 0 {
				b.bus.SetDown(true)
			}
			for p := range partition.ID(few) {
				if err := b.append(b.owner(p), p, tag); err != nil {
					t.Fatalf("append %d to partition %d without the bus: %v", tag, p, err)
				}
			}
			time.Sleep(time.Second)
		}
		b.bus.SetDown(false)
		time.Sleep(time.Minute)
		if now := b.changed(); now != before {
			t.Errorf("%d roles changed", now-before)
		}
	})
}

// An owner that no link reaches any more goes on alone, since its heartbeat is seen:
// after 3 s its followers are out, and back when the link is.
func TestHost_LinksCut(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(b *bubble) {
		time.Sleep(time.Minute)
		at := b.owner(0)
		b.setCut("a", true)
		begin := time.Now()
		if err := b.append(at, 0, 1); err != nil {
			t.Fatalf("an append after the cut: %v", err)
		}
		if took := time.Since(begin); took < 2*time.Second || took > 6*time.Second {
			t.Errorf("acknowledged alone after %v, expected about 3 s", took)
		}
		b.setCut("a", false)
		b.eventually("in sync again", b.settled)
		for _, name := range b.names {
			if !b.has(name, 0, 1) {
				t.Errorf("%s lacks what was appended meanwhile", name)
			}
		}
	})
}

// A broker that comes back without its disk owns nothing before it is informed, though it is
// in sync long before; nor does one that is owner by the table and was away for a moment.
func TestHost_Informed(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(b *bubble) {
		time.Sleep(time.Minute)
		share, _ := b.hosts["b"].Holds("a")
		for _, lost := range []bool{true, false} {
			var informed atomic.Bool
			b.tweak = func(c *host.Config) { c.Informed = informed.Load }
			b.stops["a"]()
			if lost {
				b.stores["a"] = mem.New()
			}
			b.start("a")
			b.eventually("a is in sync, b owns all or a claims", func() bool {
				for p := range partition.ID(few) {
					e := b.hosts["b"].Entry(p).Table
					if !e.IsInSync("a") || lost && e.Owner != "b" {
						return false
					}
				}
				return true
			})
			for range 600 {
				time.Sleep(100 * time.Millisecond)
				for p := range partition.ID(few) {
					if b.hosts["a"].Entry(p).Serving {
						t.Fatalf("disk lost %v: it serves partition %d without being informed", lost, p)
					}
					if lost && !b.hosts["b"].Entry(p).Serving {
						t.Fatalf("partition %d is not served by who could", p)
					}
				}
			}
			informed.Store(true)
			b.eventually("a owns its share", func() bool {
				owned, _ := b.hosts["b"].Holds("a")
				return owned == share && b.settled()
			})
		}
	})
}

// A broker that drains hands everything over, as planned, while appends go on.
func TestHost_Drain(t *testing.T) {
	inBubble(t, []string{"a", "b", "c"}, func(b *bubble) {
		time.Sleep(time.Minute)
		leaves := b.owner(0)
		drained := make(chan error, 1)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			drained <- b.hosts[leaves].Drain(ctx)
		}()
		acked, slowest := map[partition.ID][]uint64{}, time.Duration(0)
		for tag, done := uint64(1), false; !done; tag++ {
			for p := range partition.ID(few) {
				at := b.owner(p)
				if at == "" {
					continue
				}
				begin := time.Now()
				switch err := b.append(at, p, tag); {
				case err == nil:
					acked[p] = append(acked[p], tag)
				case !errors.Is(err, host.ErrNotOwner):
					t.Fatalf("an append of a planned move: %v", err)
				}
				slowest = max(slowest, time.Since(begin))
			}
			select {
			case err := <-drained:
				if done = true; err != nil {
					t.Fatalf("drain: %v", err)
				}
			case <-time.After(10 * time.Millisecond):
			}
		}
		if slowest > 500*time.Millisecond {
			t.Errorf("an append took %v during the move", slowest)
		}
		b.eventually("in sync elsewhere", b.settled)
		for p, tags := range acked {
			at := b.owner(p)
			for _, tag := range tags {
				if at == leaves || !b.has(at, p, tag) {
					t.Fatalf("%s lacks append %d to partition %d, or still owns it", at, tag, p)
				}
			}
		}
		for _, c := range b.changes[leaves] {
			if c.Role == partition.Following && c.Epoch > 2 && !c.Planned {
				t.Errorf("unplanned: %+v", c)
			}
		}
	})
}

// One broker alone is served without any other; what waits when it ends is told so.
func TestHost_Alone(t *testing.T) {
	inBubble(t, []string{"a"}, func(b *bubble) {
		if err := b.append("a", 2, 1); err != nil || !b.has("a", 2, 1) {
			t.Fatalf("append: %v", err)
		}
		if err := b.append("a", few, 1); !errors.Is(err, host.ErrNotOwner) {
			t.Errorf("a partition that is not there: %v", err)
		}
		if s := b.hosts["a"].Stats(); s.Serving != few || s.InSync != few || s.Appends != 1 || s.Committed != 1 {
			t.Errorf("stats are %+v", s)
		}
		h := b.hosts["a"]
		b.stops["a"]()
		done := make(chan error, 1)
		h.Append(0, h.Entry(0).Table.Epoch, nil, func(err error) { done <- err })
		if err := <-done; !errors.Is(err, host.ErrClosed) {
			t.Errorf("after its end: %v", err)
		}
		b.start("a")
		b.eventually("served again", b.settled)
		if !b.has("a", 2, 1) {
			t.Error("what was appended is gone")
		}
	})
}

// While the disk takes nothing nothing is acknowledged; afterwards all is.
func TestHost_DiskFails(t *testing.T) {
	inBubble(t, []string{"a"}, func(b *bubble) {
		b.stops["a"]()
		inner, calls := b.stores["a"], atomic.Int64{}
		fails := make(chan bool, 1)
		b.stores["a"] = faulty.New(inner, faulty.Script{Apply: func(n int64) error {
			calls.Store(n)
			select {
			case on := <-fails:
				fails <- on
				if on {
					return faulty.ErrDisk
				}
			default:
			}
			return nil
		}})
		b.start("a")
		b.eventually("served again", b.settled)
		fails <- true
		time.AfterFunc(4500*time.Millisecond, func() { <-fails })
		time.AfterFunc(2*time.Second, func() {
			if !b.hosts["a"].Stats().Failing {
				t.Error("nobody is told that the disk fails")
			}
		})
		begin := time.Now()
		if err := b.append("a", 1, 1); err != nil || time.Since(begin) < 4*time.Second {
			t.Errorf("an append that the disk refused was answered %v after %v", err, time.Since(begin))
		}
		if s := b.hosts["a"].Stats(); s.Failing || !b.has("a", 1, 1) || calls.Load() == 0 {
			t.Errorf("afterwards: %+v", s)
		}
	})
}

// What cannot be written ends its own replica, and no other.
func TestHost_BatchIsNone(t *testing.T) {
	inBubble(t, []string{"a"}, func(b *bubble) {
		done := make(chan error, 1)
		b.hosts["a"].Append(1, b.hosts["a"].Entry(1).Table.Epoch, []byte("no batch"), func(err error) { done <- err })
		if err := <-done; !errors.Is(err, host.ErrLost) {
			t.Errorf("answered %v", err)
		}
		if err := b.append("a", 1, 1); !errors.Is(err, host.ErrNotOwner) {
			t.Errorf("an append behind it: %v", err)
		}
		if err := b.append("a", 2, 1); err != nil {
			t.Errorf("an append elsewhere: %v", err)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		if c := b.changes["a"]; c[len(c)-1].Role != partition.Alarmed || b.hosts["a"].Stats().Alarmed != 1 || b.hosts["a"].Entry(1).Serving {
			t.Errorf("the last change is %+v", c[len(c)-1])
		}
	})
}

// judging sees whether a copy of partition 0 was ever stored as less than whole. What
// is stored now does not tell: it may have caught up meanwhile.
type judging struct {
	kv.Store
	judged atomic.Bool
}

func (j *judging) Apply(b *kv.Batch, sync bool) error {
	state := partition.Key(nil, 0, partition.KindState)
	b.Each(func(put bool, key, value []byte) {
		if put && bytes.Equal(key, state) && partition.Copy(value[9]) < partition.Whole {
			j.judged.Store(true)
		}
	})
	return j.Store.Apply(b, sync)
}

// After a power cut copies are judged before they serve, and the broker hears when
// that is on the disk.
func TestHost_PowerLost(t *testing.T) {
	inBubble(t, []string{"a", "b"}, func(b *bubble) {
		if err := b.append(b.owner(0), 0, 1); err != nil {
			t.Fatal(err)
		}
		started := make(chan bool, 2)
		b.tweak = func(c *host.Config) {
			store := &judging{Store: c.Store}
			c.PowerLost, c.Store = true, store
			c.Started = func() { started <- store.judged.Load() }
		}
		for _, name := range b.names {
			b.stops[name]()
		}
		for _, name := range b.names {
			b.start(name)
		}
		for range b.names {
			if !<-started {
				t.Error("before Started a copy was not stored as one that may lack something")
			}
		}
		b.eventually("in sync again", b.settled)
		for _, name := range b.names {
			if !b.has(name, 0, 1) {
				t.Errorf("%s lacks what was acknowledged", name)
			}
		}
	})
}

var _ kv.Store = (*faulty.Store)(nil)
