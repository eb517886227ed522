// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"log/slog"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/topic"
	"github.com/manormq/manor/services/broker/queue"
	"github.com/manormq/manor/services/broker/route"
	"github.com/manormq/manor/services/broker/route/share"
	"github.com/manormq/manor/services/broker/session"
)

// frame does what a gateway says about a channel.
func (s *Shard) frame(ch *Channel, f *link.UpFrame) {
	if f.Kind == link.UpOpen {
		s.open(ch, f.Open)
		return
	}
	se := ch.sess
	if f.Kind == link.UpClose {
		ch.link.forget(ch)
		if se != nil {
			s.closeChannel(se, f.Close)
		}
		return
	}
	if se == nil {
		return // the session was taken over or refused; the close is on its way
	}
	switch f.Kind {
	case link.UpPublish:
		s.stats.QueueIn.Add(1)
		s.consume(ch, &f.Message)
		ev := session.Event{Kind: session.Publish, QoS: f.Message.QoS, Packet: f.PacketID}
		s.step(se, &ev, &f.Message)
	case link.UpAck:
		ev := session.Event{Kind: session.Ack, Ack: f.Ack, Packet: f.PacketID, Reason: f.Reason}
		s.step(se, &ev, nil)
		s.pump(se)
	case link.UpTooLarge:
		s.drop(se, dropTooLarge)
		ev := session.Event{Kind: session.TooLarge, Packet: f.PacketID}
		s.step(se, &ev, nil)
		s.pump(se)
	case link.UpCredit:
		ev := session.Event{Kind: session.Credit, Bytes: f.Bytes}
		s.step(se, &ev, nil)
		s.pump(se)
	case link.UpSubscribe:
		ev := session.Event{Kind: session.Subscribe, Packet: f.PacketID, Subs: f.Subscribe, Limit: se.limits.Subscriptions}
		s.step(se, &ev, nil)
	case link.UpUnsubscribe:
		ev := session.Event{Kind: session.Unsubscribe, Packet: f.PacketID, Filter: f.Unsubscribe}
		s.step(se, &ev, nil)
	case link.UpOpen, link.UpClose, link.UpQuery:
		// handled above, and by the link
	}
}

// open attaches a channel to its session: the one there is, or a new one.
func (s *Shard) open(ch *Channel, o *link.Open) {
	se := s.sessions[sessKey{ch.tenant, o.ClientID}]
	present := false
	if se != nil {
		s.takeOver(se)
		if o.CleanStart || !se.Durable() {
			s.step(se, &session.Event{Kind: session.Discard}, nil)
			se = nil
		}
		present = se != nil
	}
	if se == nil {
		if o.SessionExpiry > 0 && o.Limits.Sessions >= 0 && ch.tenant.sessions.Load() >= o.Limits.Sessions {
			s.stats.Refused.Add(1)
			s.tell(ch, link.DownFrame{Kind: link.DownRefused, Reason: mqtt.QuotaExceeded, Text: "the tenant has as many persistent sessions as its quota persistent_sessions allows"})
			return
		}
		se = s.create(ch, o)
	}
	se.ch, ch.sess = ch, se
	s.introduce(se, o)
	ch.tenant.connections.Add(1)
	if se.groups > 0 {
		s.eachGroup(se, func(g *share.Group[*sess], _ string) { g.SetOnline(se, true) })
	}
	will := o.Will
	if will != nil {
		will = &mqtt.Will{Message: will.Message.Clone(), Delay: will.Delay}
	}
	inMax := o.Limits.ReceiveMaximum
	if inMax == 0 {
		inMax = 65535
	}
	s.step(se, &session.Event{Kind: session.Attach, Open: &session.Opening{
		Present: present, Expiry: o.SessionExpiry, Will: will,
		ReceiveMaximum: o.ReceiveMaximum, InboundMaximum: inMax, Credit: o.Credit,
	}}, nil)
}

// introduce notes what a connection says about itself. Ten thousand idle
// connections mostly say the same, so that is kept once.
func (s *Shard) introduce(se *sess, o *link.Open) {
	se.limits = shared(s.limits, o.Limits)
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
	m[v] = &v
	return &v
}

// takeOver closes the session's present connection for another one.
func (s *Shard) takeOver(se *sess) {
	if se.ch == nil {
		return
	}
	s.stats.TakeOvers.Add(1)
	s.step(se, &session.Event{Kind: session.TakeOver}, nil)
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
	se.replays = nil
	se.tenant.connections.Add(-1)
	if se.groups > 0 {
		s.eachGroup(se, func(g *share.Group[*sess], _ string) { g.SetOnline(se, false) })
	}
}

func (s *Shard) closeChannel(se *sess, c *link.Close) {
	ev := session.Event{Kind: session.Detach, Cause: session.Lost}
	if c.Cause == link.CloseNormal {
		ev.Cause = session.Normal
	}
	if c.HasSessionExpiry {
		ev.Expiry = &c.SessionExpiry
	}
	s.unbind(se)
	s.step(se, &ev, nil)
	if !se.gone {
		s.regroup(se, false)
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
	s.sessions[sessKey{ch.tenant, o.ClientID}] = se
	if o.SessionExpiry > 0 {
		ch.tenant.sessions.Add(1)
	}
	return se
}

// step steps a session and carries the effects out. m is the message of a
// Publish event.
func (s *Shard) step(se *sess, ev *session.Event, m *mqtt.Message) { s.stepEntry(se, ev, m, nil) }

// stepEntry is step for an Enqueued event: e is the entry at the head.
func (s *Shard) stepEntry(se *sess, ev *session.Event, m *mqtt.Message, e *queue.Entry) {
	if s.depth == len(s.effects) {
		s.effects = append(s.effects, &session.Effects{})
	}
	fx := s.effects[s.depth]
	s.depth++
	fx.Reset()
	se.Step(s.now, ev, fx)
	s.save(se, fx.Save)
	for i := range fx.Route {
		p := &fx.Route[i]
		if p.Will != nil {
			s.publish(se, p.Will, p)
		} else {
			s.publish(se, m, p)
		}
	}
	if ev.Kind == session.Subscribe {
		s.subscribed(se, ev, fx)
	}
	if ev.Kind == session.Unsubscribe {
		s.unsubscribed(se, ev, fx)
	}
	for i := range fx.Send {
		o := &fx.Send[i]
		if o.AfterCommit {
			s.wait(waiter{se: se, epoch: se.Epoch(), out: *o, entry: e})
		} else {
			s.emit(se, o, e)
		}
	}
	if fx.Ended {
		s.finishSession(se)
	} else {
		s.due(se)
	}
	s.depth--
}

// emit says o to the gateway. The entry is given if the caller has it; else it
// is read for sending it again.
func (s *Shard) emit(se *sess, o *session.Out, e *queue.Entry) {
	ch := se.ch
	if ch == nil {
		return
	}
	switch o.Kind {
	case session.OutOpened:
		ch.granted = windowSize
		s.tell(ch, link.DownFrame{Kind: link.DownOpened, SessionPresent: o.Present, Bytes: ch.granted})
		// Only now may deliveries follow.
		s.step(se, &session.Event{Kind: session.Credit, Bytes: o.Credit}, nil)
		s.pump(se)
	case session.OutDeliver:
		s.emitDelivery(se, o, e)
	case session.OutAck:
		s.tell(ch, link.DownFrame{Kind: link.DownAck, Ack: o.Ack, PacketID: o.Packet, Reason: o.Reason})
	case session.OutSuback:
		s.tell(ch, link.DownFrame{Kind: link.DownSuback, PacketID: o.Packet, Reasons: o.Reasons})
		s.startReplays(se, o)
	case session.OutUnsuback:
		s.tell(ch, link.DownFrame{Kind: link.DownUnsuback, PacketID: o.Packet, Reasons: o.Reasons})
	case session.OutClose:
		s.tell(ch, link.DownFrame{Kind: link.DownClose, Reason: o.Reason, Text: closeText(o.Reason)})
	}
}

func closeText(r mqtt.ReasonCode) string {
	switch r {
	case mqtt.SessionTakenOver:
		return "another connection uses this client identifier"
	case mqtt.ReceiveMaximumExceeded:
		return "more QoS 1 and 2 publishes are unacknowledged than the Receive Maximum allows"
	default:
		return r.String()
	}
}

func (s *Shard) emitDelivery(se *sess, o *session.Out, e *queue.Entry) {
	if e == nil {
		var err error
		if e, err = se.queueOf().Reload(o.Seq); err != nil {
			// The store is damaged: the delivery is completed, so that the
			// session goes on, and said.
			s.set.log.Error("a message in flight cannot be read from the store; it is lost to this session",
				slog.String("tenant", se.tenant.id), slog.String("client_id", string(se.ClientID)), slog.Any("error", err))
			s.drop(se, dropUnreadable)
			s.step(se, &session.Event{Kind: session.TooLarge, Packet: o.Packet}, nil)
			return
		}
	}
	s.deliverTo(se.ch, link.DownFrame{
		PacketID: o.Packet, QoS: o.QoS, Dup: o.Dup, Retain: e.Retain, SubscriptionIDs: e.IDs,
	}, e.Message, e.ExpireAt, e.Serial)
}

// subscribed brings the granted filters of a SUBSCRIBE into the routes, before
// SUBACK goes out.
func (s *Shard) subscribed(se *sess, ev *session.Event, fx *session.Effects) {
	o := &fx.Send[len(fx.Send)-1]
	for i := range ev.Subs {
		if o.Reasons[i].Failed() {
			s.stats.SubscribeRefused.Add(1)
			continue
		}
		s.addRoute(se, &ev.Subs[i], o.New[i])
	}
	o.Subs = append([]mqtt.Subscription(nil), ev.Subs...)
}

func (s *Shard) addRoute(se *sess, sub *mqtt.Subscription, isNew bool) {
	if isNew {
		se.tenant.subscriptions.Add(1)
	}
	_, rest, shared, _ := topic.ParseShare(sub.Filter)
	if !shared {
		se.tenant.routes.Subscribe(se.space.id, route.Sub[*sess]{Session: se, Options: *sub, Durable: se.Durable()})
		return
	}
	if isNew {
		se.groups++
	}
	se.tenant.routes.Join(sub.Filter, rest, share.Member[*sess]{Session: se, Sub: *sub, Durable: se.Durable()}, se.ch != nil)
}

func (s *Shard) unsubscribed(se *sess, ev *session.Event, fx *session.Effects) {
	o := &fx.Send[len(fx.Send)-1]
	for i, f := range ev.Filter {
		if o.Reasons[i] == mqtt.Success {
			s.removeRoute(se, f)
		}
	}
}

func (s *Shard) removeRoute(se *sess, filter string) {
	se.tenant.subscriptions.Add(-1)
	_, rest, shared, _ := topic.ParseShare(filter)
	if !shared {
		se.tenant.routes.Unsubscribe(se.space.id, se, filter)
		return
	}
	se.groups--
	se.tenant.routes.Leave(filter, rest, se)
}

// eachGroup calls f for each shared subscription of the session.
func (s *Shard) eachGroup(se *sess, f func(g *share.Group[*sess], key string)) {
	for _, sub := range se.Subscriptions() {
		if _, rest, shared, _ := topic.ParseShare(sub.Filter); shared {
			if g := se.tenant.routes.Group(sub.Filter, rest); g != nil {
				f(g, sub.Filter)
			}
		}
	}
}

// finishSession forgets a session that has ended, with all that it has.
func (s *Shard) finishSession(se *sess) {
	if se.gone {
		return
	}
	s.unbind(se)
	if se.groups > 0 {
		s.regroup(se, true)
	}
	for _, sub := range se.Subscriptions() {
		s.removeRoute(se, sub.Filter)
	}
	se.gone = true
	if se.Durable() {
		se.tenant.sessions.Add(-1)
	}
	if se.queue != nil {
		se.tenant.queueMessages.Add(-se.queue.Len())
		se.tenant.queueBytes.Add(-se.queue.Bytes())
	}
	s.wipe(se)
	if s.sessions[sessKey{se.tenant, se.ClientID}] == se {
		delete(s.sessions, sessKey{se.tenant, se.ClientID})
	}
	se.deadline = 0
}
