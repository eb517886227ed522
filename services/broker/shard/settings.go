// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"math/rand/v2"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/queue"
	"github.com/manormq/manor/services/broker/route/share"
	"github.com/manormq/manor/services/broker/session"
)

// upgraded marks the QoS of a route whose deliveries have the subscription's QoS,
// whatever that of the message (upgrade_outgoing_qos).
const upgraded mqtt.QoS = 1 << 7

// qosOf is the QoS of a delivery: the lower one of the subscription's and the
// message's [MQTT-3.8.4-8], unless the route is marked.
func qosOf(granted, published mqtt.QoS) mqtt.QoS {
	if granted&upgraded != 0 {
		return granted &^ upgraded
	}
	return min(granted, published)
}

// granted marks the QoS of a subscription if the session has deliveries upgraded.
func (se *sess) granted(q mqtt.QoS) mqtt.QoS {
	if se.limits.Settings.UpgradeQoS {
		q |= upgraded
	}
	return q
}

// limit sets what holds for a session.
func (s *Shard) limit(se *sess, l link.Limits) {
	before := se.limits
	se.tenant.bound(&l.Tenant)
	l.Tenant = link.TenantLimits{} // the tenant has them
	se.limits = shared(s.limits, l)
	if se.member != nil && (before == nil || before.Settings.Member != l.Settings.Member) {
		se.member.checkAt = 0
	}
	s.watch(se)
	if before == nil || before.Settings.UpgradeQoS == l.Settings.UpgradeQoS {
		return
	}
	for _, sub := range se.Subscriptions() {
		s.addRoute(se, &sub, false)
	}
}

// adjust takes what the tenant has changed, for a session that has a connection.
func (s *Shard) adjust(se *sess, l *link.NewLimits) {
	s.limit(se, l.Limits)
	s.step(se, &session.Event{
		Kind: session.Adjust, Window: l.Limits.Settings.Inflight, Retry: l.Limits.Settings.Retry, Expiry: &l.SessionExpiry,
	}, nil)
	s.pump(se)
}

// room is how much may wait for the session, in messages and bytes.
func (se *sess) room() (messages, bytes int64) {
	l := se.limits
	messages, bytes = l.QueueMessages, l.QueueBytes
	if online := l.Settings.OnlineMessages; online > 0 && se.ch != nil && (messages < 0 || online < messages) {
		messages = online
	}
	if l.Settings.LIFO && !se.Durable() && (bytes < 0 || bytes > queue.MemoryLimit) {
		bytes = queue.MemoryLimit // what such a queue holds is in memory
	}
	return messages, bytes
}

// makeRoom drops what has expired, and the oldest of a lifo, until e fits. It
// reports false if it does not.
func (s *Shard) makeRoom(se *sess, e *queue.Entry, messages, bytes int64) bool {
	s.dropExpired(se)
	q := se.queueOf()
	if !se.limits.Settings.LIFO {
		return q.Fits(e.Size(), messages, bytes)
	}
	for !q.Fits(e.Size(), messages, bytes) {
		if !s.dropBack(se) {
			return false
		}
	}
	return true
}

// dropBack drops the last of the waiting messages.
func (s *Shard) dropBack(se *sess) bool {
	e, ok := se.queue.DropBack(s.batch(se.space))
	if ok {
		s.left(se, int64(e.Size()))
		s.drop(se, dropQueueFull)
		s.touch(se)
	}
	return ok
}

// trim drops what waits beyond max_online_messages when a client comes back,
// unless that is to be kept: of a fifo the newest, of a lifo the oldest.
func (s *Shard) trim(se *sess, l *link.Limits) {
	most := l.Settings.OnlineMessages
	if most <= 0 || l.Settings.KeepOffline {
		return
	}
	for se.waiting() > most && s.dropBack(se) {
	}
}

// flying calls f with the seq of each delivery that is under way.
func (se *sess) flying(f func(seq uint64)) {
	se.Inflights(func(_ uint16, _ session.State, seq uint64) { f(seq) })
}

// pick chooses the member of a group that gets a message of se. stored reports
// whether that may have to be stored.
func (s *Shard) pick(g *share.Group[*sess], se *sess, m *mqtt.Message) (to share.Member[*sess], stored, ok bool) {
	how := share.How{Policy: se.limits.Settings.Share}
	switch how.Policy {
	case link.ShareRoundRobin:
		return g.Next()
	case link.ShareStickyPublisher:
		how.Key = share.Hash(se.ClientID)
	case link.ShareStickyTopic:
		how.Key = share.Hash(m.Topic)
	case link.ShareRandom, link.SharePreferLocal, link.ShareLocalOnly, link.ShareOnlineBeforeLocal:
		how.Random = rand.Uint64()
	}
	to, _, ok = g.PickBy(how)
	return to, g.Durable(), ok
}
