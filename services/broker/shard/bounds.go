// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"sync/atomic"
	"time"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/cluster"
)

// receivers are what a message may still have, in all shards of this broker.
type receivers struct {
	left atomic.Int64
	// from has published it.
	from mqtt.ClientID
}

// take takes n, or as many as are left.
func (r *receivers) take(n int) int {
	left := r.left.Add(-int64(n)) + int64(n) // before this
	return int(min(int64(n), max(left, 0)))
}

// fanOutOf bounds the receivers of what se publishes; nil does not. A message has no more
// of them here than its tenant has subscriptions, so that most need no count.
func (s *Shard) fanOutOf(se *sess) *receivers {
	most := se.tenant.quota().FanOut
	if most < 0 || se.space == nil || se.tenant.subscriptions.Load() <= most {
		return nil
	}
	r := &receivers{from: se.ClientID}
	r.left.Store(most)
	return r
}

// fanOutSlack is what a partition may have beside its share.
const fanOutSlack = 64

// fanOutHere is fanOutOf for what comes from another turn of a cluster. Each partition
// counts for itself, since who publishes does not know how many there are: it may have
// its share, a quarter more and fanOutSlack, and never more than the quota. Clients are
// spread evenly over the partitions, so that a message that the quota allows is not cut.
func (t *Tenant) fanOutHere(e *cluster.Enqueue) *receivers {
	most := t.quota().FanOut
	if most < 0 || t.subscriptions.Load() <= min(most, fanOutSlack) {
		return nil
	}
	share := most/int64(max(1, len(t.parts())))*5/4 + fanOutSlack
	r := &receivers{from: e.From}
	r.left.Store(min(most, share*int64(max(1, len(e.Parts)))))
	return r
}

// clip leaves of the hits as many as the message may have.
func (s *Shard) clip(v *view) []hit {
	if v.most == nil || len(s.hits) == 0 {
		return s.hits
	}
	n := v.most.take(len(s.hits))
	if cut := s.hits[n:]; len(cut) > 0 {
		s.clipped(cut[0].se.tenant, v, len(cut))
		clear(cut)
	}
	return s.hits[:n]
}

// clipped counts receivers that a message does not reach.
func (s *Shard) clipped(t *Tenant, v *view, n int) {
	for range n {
		s.dropped(t, dropFanOut)
	}
	s.note(t, v.most.from, noteFanOut, n)
}

// paceTime is the time, in milliseconds, in which a session is sent as many retained
// messages as the quota retained_subscribe says.
const paceTime = 1000

// pacing counts the retained messages that a session is sent.
type pacing struct {
	began int64
	sent  int64
	waits bool
}

// pace reports whether the session may be sent a retained message now. If not, its
// replays go on by themselves later: nothing is left out.
func (s *Shard) pace(se *sess) bool {
	most := se.tenant.quota().RetainedSubscribe
	if most < 0 || se.space.ceding != nil || s.stops[se.tenant] != nil {
		return true // a partition that is about to move waits for it
	}
	p := se.pacing
	if p == nil || s.now-p.began >= paceTime && !p.waits {
		se.pacing = &pacing{began: s.now}
		return true
	}
	if p.sent < max(most, 1) {
		return true
	}
	if !p.waits {
		p.waits = true
		s.stats.Paced.Add(1)
		s.note(se.tenant, se.ClientID, noteRetainedSubscribe, 1)
		s.after(time.Duration(max(p.began+paceTime-s.now, 1))*time.Millisecond, func() {
			if se.pacing == p {
				se.pacing = nil
				s.replay(se)
			}
		})
	}
	return false
}

// hurry has what waits to be sent in later seconds be sent now.
func (s *Shard) hurry(se *sess) {
	if se.pacing != nil {
		se.pacing = nil
		s.replay(se)
	}
}

// paced counts what was sent.
func (se *sess) paced(n int64) {
	if se.pacing != nil {
		se.pacing.sent += n
	}
}
