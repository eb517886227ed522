// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/route/share"
	"github.com/manormq/manor/services/broker/session"
)

// open attaches a channel to its session: the one there is, or a new one.
func (s *Shard) open(ch *Channel, o *link.Open) {
	if ch.link.closed() {
		return // its close has been here already
	}
	ch.tenant.bound(&o.Limits.Tenant)
	if o.Guest && s.set.cluster != nil {
		s.openGuest(ch, o)
		return
	}
	if s.mislaid(ch, o) {
		return
	}
	if p := s.spaces[ch.part]; p == nil || p.ceding != nil {
		s.elsewhere(ch)
		return
	}
	if o.Resume != 0 {
		s.goOn(ch, o)
		return
	}
	se := s.session(ch.tenant, o.ClientID)
	if se != nil && se.awaited != nil {
		s.overtaken(se, o.Limits.Settings.QuietTakeover)
	}
	if se != nil && o.Limits.Settings.Multiple && se.offline() == nil {
		s.openAnother(se, ch, o)
		return
	}
	present := false
	if se != nil {
		if se.kin != nil {
			se = s.unkin(se, o)
		}
		s.takeOver(se, o.Limits.Settings.QuietTakeover)
		if o.CleanStart || se.Expiry() == 0 { // [MQTT-3.1.2.11.2]
			s.step(se, &session.Event{Kind: session.Discard}, nil)
			if se = s.session(ch.tenant, o.ClientID); se != nil { // which has others still
				s.openAnother(se, ch, o)
				return
			}
		}
		if present = se != nil; present {
			s.writeAll(se)
			s.trim(se, &o.Limits)
		}
	}
	if se == nil {
		if s.refuseSession(ch, o) {
			return
		}
		se = s.create(ch, o)
	}
	s.attach(se, ch, o, present)
}

// attach opens the channel for the session.
func (s *Shard) attach(se *sess, ch *Channel, o *link.Open, present bool) {
	se.ch, ch.sess = ch, se
	s.introduce(se, o)
	ch.tenant.connections.Add(1)
	s.setOnline(se, true)
	will := o.Will
	if will != nil {
		will = &mqtt.Will{Message: will.Message.Clone(), Delay: will.Delay}
	}
	inMax := o.Limits.ReceiveMaximum
	if inMax == 0 {
		inMax = 65535
	}
	s.opening = session.Opening{
		Present: present, Asked: !o.CleanStart, Expiry: o.SessionExpiry, Will: will,
		ReceiveMaximum: o.ReceiveMaximum, InboundMaximum: inMax, Credit: o.Credit,
		Window: o.Limits.Settings.Inflight, Retry: o.Limits.Settings.Retry,
	}
	s.step(se, &session.Event{Kind: session.Attach, Open: &s.opening}, nil)
	s.opening.Will = nil
}

// openAnother attaches a channel to a session of its own beside those that the
// client id has. Clean Start cannot be had, as for VerneMQ.
func (s *Shard) openAnother(head *sess, ch *Channel, o *link.Open) {
	if s.refuseSession(ch, o) {
		return
	}
	se := s.join(head, ch, o)
	s.attach(se, ch, o, !o.CleanStart) // told of no session if it asked for none
	s.inherit(se)
}

// unkin ends all sessions of a client id but the one that a new connection is to
// have: one that has no connection, else the head.
func (s *Shard) unkin(head *sess, o *link.Open) *sess {
	stays := head
	if off := head.offline(); off != nil && o.Limits.Settings.Multiple {
		return off
	}
	for _, m := range head.all() {
		if m != stays {
			s.takeOver(m, o.Limits.Settings.QuietTakeover)
			s.step(m, &session.Event{Kind: session.Discard}, nil)
		}
	}
	return stays
}

// refuseSession refuses a new session if it would be stored and its tenant may store no
// more. It reports whether it has.
func (s *Shard) refuseSession(ch *Channel, o *link.Open) bool {
	text := ""
	switch t := ch.tenant; {
	case o.SessionExpiry == 0:
		return false
	case o.Limits.Sessions >= 0 && s.everywhere(t, ofSessions, o.Limits.Sessions) >= o.Limits.Sessions:
		text = "the tenant has as many persistent sessions as its quota persistent_sessions allows"
	case s.storageFull(t, 1):
		text = "the tenant stores as much as its quota storage_bytes allows: a session without an expiry could be had"
	default:
		return false
	}
	s.stats.Refused.Add(1)
	s.tell(ch, link.DownFrame{Kind: link.DownRefused, Reason: mqtt.QuotaExceeded, Text: text})
	return true
}

// introduce notes what a connection says about itself. Ten thousand idle
// connections mostly say the same, so that is kept once.
func (s *Shard) introduce(se *sess, o *link.Open) {
	s.limit(se, o.Limits)
	origin := o.Labels
	se.user, se.peer = origin.Username, origin.Peer
	origin.Username, origin.Peer = "", ""
	se.origin = shared(s.origins, origin)
	se.connectedAt = s.now
}

// maxShared is how many different values are kept to be shared.
const maxShared = 1024

// shared returns the one copy of v in m.
func shared[T comparable](m map[T]*T, v T) *T {
	if p, ok := m[v]; ok {
		return p
	}
	if len(m) >= maxShared {
		clear(m)
	}
	p := new(T) // not &v, which would be made whether it is needed or not
	*p = v
	m[v] = p
	return p
}

// takeOver closes the session's present connection for another one.
func (s *Shard) takeOver(se *sess, quiet bool) {
	if se.ch == nil {
		return
	}
	s.stats.TakeOvers.Add(1)
	s.step(se, &session.Event{Kind: session.TakeOver, Quiet: quiet}, nil)
	s.unbind(se)
}

// unbind cuts the session off its channel.
func (s *Shard) unbind(se *sess) {
	if se.ch == nil {
		return
	}
	se.ch.sess = nil
	se.ch = nil
	se.disconnectedAt = s.now
	se.replays, se.pacing, se.refused, se.last = nil, nil, nil, nil
	if se.queue != nil && se.kin == nil {
		se.queue.Rest()
	}
	se.tenant.connections.Add(-1)
	if se.member != nil {
		se.member.busy.Store(false) // who has no connection is not asked for room
	}
	s.setOnline(se, false)
}

// setOnline has the groups of a session know whether it has a connection.
func (s *Shard) setOnline(se *sess, on bool) {
	if se.groups > 0 {
		s.eachGroup(se, func(g *share.Group[*sess], key string) {
			g.SetOnline(se, on)
			s.tellGroup(se, key)
		})
	}
}

func (s *Shard) closeChannel(se *sess, c *link.Close) {
	if se.ch != nil {
		s.uncarry(se.ch)
	}
	ev := session.Event{Kind: session.Detach, Cause: session.Lost}
	if c.Cause == link.CloseNormal {
		ev.Cause = session.Normal
	}
	if c.HasSessionExpiry {
		ev.Expiry = &c.SessionExpiry
	}
	s.unbind(se)
	if se.others() {
		s.leaveKin(se, &ev)
		return
	}
	s.step(se, &ev, nil)
	if !se.gone {
		s.writeAll(se)
		if se.kin == nil {
			if se.queue != nil {
				se.queue.Rest()
			}
			s.regroup(se)
		}
	}
}

// passing marks the ids of sessions that end with their connection: they are
// counted in memory alone, so that such a session writes nothing. What one has
// spilled is an orphan after a restart, and removed.
const passing = 1 << 63

func (s *Shard) sid(p *space, o *link.Open) uint64 {
	if o.SessionExpiry > 0 || o.Will != nil {
		return s.next(p)
	}
	s.passing++
	return passing | s.passing
}

func (s *Shard) create(ch *Channel, o *link.Open) *sess {
	p := s.spaces[ch.part]
	se := &sess{tenant: ch.tenant, space: p}
	se.Session = *session.New(s.sid(p, o), o.ClientID)
	s.put(se)
	if o.SessionExpiry > 0 || o.Will != nil {
		s.keepCell(ch.tenant, p)
	}
	se.tenant.all.Add(1)
	if o.SessionExpiry > 0 {
		ch.tenant.sessions.Add(1)
		if most := o.Limits.Sessions; most > 0 {
			s.everywhere(ch.tenant, ofSessions, most) // which may be near its limit now
		}
	}
	return se
}

// finishSession forgets a session that has ended, with all that it has.
func (s *Shard) finishSession(se *sess) {
	if se.gone {
		return
	}
	if se.ch != nil {
		s.uncarry(se.ch)
	}
	s.unbind(se)
	se.ending = true
	s.forgetUnwritten(se)
	if se.kin == nil { // else they had it
		s.regroup(se)
	}
	for _, sub := range se.Subscriptions() {
		s.removeRoute(se, sub.Filter)
	}
	se.gone = true
	se.tenant.all.Add(-1)
	se.uncount()
	s.wipe(se)
	s.part(se)
	s.remove(se)
	s.due(se)
}
