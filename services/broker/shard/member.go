// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"log/slog"
	"math"
	"sync/atomic"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/route/share"
)

// member is what a session has as a member of shared subscriptions. A message
// stays with it for as long as the tenant allows (shared_member_timeout), and then
// goes to another member. It is owned by the shard, but for busy.
type member struct {
	// busy says that it has no room for a message; any shard may ask.
	busy atomic.Bool
	// checkAt is when checkMember is to look, in Unix milliseconds; 0 is never.
	checkAt int64
	// waited: what waits with a lower seq did so at the last look, too.
	waited uint64
}

const (
	// memberLooks is how often a member is looked at in its timeout while something
	// waits, which is relieved at the second look.
	memberLooks = 8
	// memberWaits of those looks are what a message may wait, so that with the time
	// in which it may be acknowledged it is not there for longer than the timeout.
	memberWaits = 2
	// relievePage is how many messages are taken from a busy member before it is
	// asked again who has room.
	relievePage = 16
)

// timeout is for how long a message stays with the member, in milliseconds; 0 is
// for as long as its connection.
func (se *sess) timeout() int64 { return int64(se.limits.Settings.Member) * 1000 }

// watch has checkMember look at what the session has as a member.
func (s *Shard) watch(se *sess) {
	if m := se.member; m != nil && m.checkAt == 0 && se.groups > 0 && se.timeout() > 0 {
		m.checkAt, m.waited = s.now+se.timeout()/memberLooks, 0
		s.due(se)
	}
}

// checkMember gives what the member keeps for too long to others.
func (s *Shard) checkMember(se *sess) {
	m, after := se.member, se.timeout()
	m.checkAt = 0
	if se.gone || se.groups == 0 || se.queue == nil || after == 0 {
		return
	}
	if se.ch == nil && se.awaited == nil {
		s.regroup(se)
		if se.Inflight() > 0 || se.waiting() > 0 { // somebody may come
			m.checkAt = s.now + after/memberLooks
		}
		return
	}
	look := after / memberLooks
	after -= memberWaits * look
	stuck, oldest := s.overdue(se, after)
	if stuck {
		s.endMember(se)
		s.watch(se) // what nobody could take yet
		return
	}
	if m.waited > 0 && se.waiting() > 0 && s.relieve(se) {
		m.checkAt = s.now + min(after-oldest, look/memberLooks)
		return
	}
	m.waited = 0
	switch {
	case se.waiting() > 0:
		m.waited = se.queue.Next()
		m.checkAt = s.now + min(after-oldest, look)
	case se.Inflight() > 0:
		m.checkAt = s.now + after - oldest
	}
}

// overdue reports whether the member has not acknowledged a message of a group
// for as long as it may, and there is another one to take it; and how old the
// oldest one is that it may still acknowledge, in milliseconds.
func (s *Shard) overdue(se *sess, after int64) (stuck bool, oldest int64) {
	se.Unacknowledged(s.now, func(seq uint64, age int64) {
		if age < 0 { // it waits, behind what was sent before, to be sent again
			age = s.now - se.connectedAt
		}
		if age < after {
			oldest = max(oldest, age)
			return
		}
		if stuck {
			return
		}
		if key := se.queue.GroupOf(seq); key != "" {
			if g := s.groupOf(se, key); g != nil {
				_, online, ok := s.successor(g, se)
				stuck = ok && online
				oldest = after - after/memberLooks // another look: somebody may come
			}
		}
	})
	return stuck, oldest
}

// endMember ends the connection of a member that is stuck. What it has goes to
// the others at once, whatever the gateway has to do yet for its socket.
func (s *Shard) endMember(se *sess) {
	s.stats.Stuck.Add(1)
	s.set.log.Warn("a member of a shared subscription is disconnected: it does not acknowledge",
		slog.String("tenant", se.tenant.id), slog.String("client_id", string(se.ClientID)),
		slog.Int("seconds", int(se.limits.Settings.Member)), slog.Int("unacknowledged", se.Inflight()))
	s.tell(se.ch, link.DownFrame{
		Kind: link.DownClose, Reason: mqtt.AdministrativeAction,
		Text: "a message of a shared subscription was not acknowledged within shared_member_timeout",
	})
	s.closeChannel(se, &link.Close{Cause: link.CloseLost})
}

// relieve gives what waited for a busy member at the last look to members that
// have room, as long as there are some. It reports whether there may be more.
func (s *Shard) relieve(se *sess) (more bool) {
	before := se.member.waited
	if se.limits.Settings.LIFO { // what waits for long is at the back
		before = math.MaxUint64
	}
	s.eachGroup(se, func(g *share.Group[*sess], key string) {
		for range regroupPage / relievePage {
			if !g.Room(se, se.Durable()) {
				break
			}
			if !s.pass(se, key, nil, before, relievePage) {
				return
			}
		}
		more = true
	})
	return more
}
