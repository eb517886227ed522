// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// Step does all that is there to do, on the calling goroutine, until nothing is. It
// and Tick stand in for Run where one goroutine does everything in an order of its
// own, as a simulation does; then nothing may call the Set meanwhile, Config.Stepped
// is set and Config.WriteDelay is 0. It goes round a bounded number of times.
func (st *Set) Step() {
	for range 10_000 {
		r := runs.Get().(*run)
		for i, s := range st.shards {
			select {
			case <-s.handover:
				if s.acquireResting() {
					s.turn(nil, nil, r)
				}
			case <-s.wake:
				r.noted |= 1 << i
			default:
			}
		}
		done := r.noted == 0
		st.finish(r)
		if done {
			return
		}
	}
}

// Tick has the shards do what is due. It is for every 50 ms or so.
func (st *Set) Tick() {
	now := st.now()
	due := st.timers
	st.timers = nil
	for _, t := range due {
		if t.ticks--; t.ticks > 0 {
			st.timers = append(st.timers, t)
			continue
		}
		t.shard.call(t.do)
	}
	if st.held.Load() && st.held.Swap(false) {
		for _, s := range st.shards {
			s.call(s.resend)
		}
	}
	st.askWatched(now)
	for _, s := range st.shards {
		if due := s.nextDue.Load(); due != 0 && due <= now || s.stalled.Load() {
			s.call(s.tick)
		}
	}
}

// timer is what a stepped Set does in so many Ticks.
type timer struct {
	shard *Shard
	ticks int
	do    func()
}

// after has do be done in a turn of the shard, in d: where the Set is stepped, in the
// Tick by which so much has passed if they are tickEvery apart.
func (s *Shard) after(d time.Duration, do func()) {
	if s.set.stepped {
		s.set.timers = append(s.set.timers, timer{s, int((d + tickEvery - 1) / tickEvery), do})
		return
	}
	time.AfterFunc(d, func() { s.call(do) })
}

// turnBound is how long a turn may take, in nanoseconds: as long as it likes where
// time is simulated, so that it ends at the same point each time.
func turnBound(stepped bool) int64 {
	if stepped {
		return math.MaxInt64
	}
	return int64(turnTime)
}

// The orders in which what maps have is gone through, where that is to be the same each
// time; elsewhere it does not matter.

func (s *Shard) orderSessions(all []*sess) {
	if s.set.stepped {
		slices.SortFunc(all, func(a, b *sess) int {
			return cmp.Or(strings.Compare(a.tenant.id, b.tenant.id), strings.Compare(string(a.ClientID), string(b.ClientID)))
		})
	}
}

func (s *Shard) orderedSessions(of map[uint64]*sess) []*sess {
	out := slices.AppendSeq(make([]*sess, 0, len(of)), maps.Values(of))
	s.orderSessions(out)
	return out
}

func (s *Shard) orderChannels(all []*Channel) {
	if s.set.stepped {
		slices.SortFunc(all, func(a, b *Channel) int { return cmp.Compare(a.id, b.id) })
	}
}

func (s *Shard) orderedStreams() []*stream {
	out := slices.AppendSeq(make([]*stream, 0, len(s.streams)), maps.Values(s.streams))
	if s.set.stepped {
		slices.SortFunc(out, func(a, b *stream) int {
			return cmp.Or(cmp.Compare(a.origin, b.origin), cmp.Compare(a.target, b.target))
		})
	}
	return out
}

func (s *Shard) orderedGroups(of map[groupOf]int) []groupOf {
	out := slices.AppendSeq(make([]groupOf, 0, len(of)), maps.Keys(of))
	if s.set.stepped {
		slices.SortFunc(out, func(a, b groupOf) int {
			return cmp.Or(strings.Compare(a.tenant.id, b.tenant.id), strings.Compare(a.key, b.key))
		})
	}
	return out
}
