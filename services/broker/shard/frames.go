// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"log/slog"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/queue"
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
		if f.Close.Answered() {
			s.tell(ch, link.DownFrame{Kind: link.DownClose, Reason: mqtt.Success})
		}
		return
	}
	if se == nil {
		return // the session was taken over or refused; the close is on its way
	}
	s.consume(ch, f)
	var ev session.Event // one for all kinds, as each takes much of a stack
	switch f.Kind {
	case link.UpPublish:
		s.stats.QueueIn.Add(1)
		count(&se.tenant.flows[s.index].in)
		ev.Kind, ev.QoS, ev.Packet = session.Publish, f.Message.QoS, f.PacketID
		s.step(se, &ev, &f.Message)
	case link.UpAck:
		ev.Kind, ev.Ack, ev.Packet, ev.Reason = session.Ack, f.Ack, f.PacketID, f.Reason
		s.step(se, &ev, nil)
		s.pump(se)
	case link.UpTooLarge:
		s.drop(se, dropTooLarge)
		ev.Kind, ev.Packet = session.TooLarge, f.PacketID
		s.step(se, &ev, nil)
		s.pump(se)
	case link.UpCredit:
		ev.Kind, ev.Bytes = session.Credit, f.Bytes
		s.step(se, &ev, nil)
		s.pump(se)
	case link.UpPaused:
		s.paused(ch)
	case link.UpSubscribe:
		if s.guestMayNot(se, f) {
			return
		}
		ch.asked++
		ev.Kind, ev.Packet, ev.Subs, ev.Limit = session.Subscribe, f.PacketID, f.Subscribe, se.limits.Subscriptions
		ev.Refused = s.beyond(se, f.Subscribe)
		s.step(se, &ev, nil)
		s.follow(se, ev)
	case link.UpUnsubscribe:
		if s.guestMayNot(se, f) {
			return
		}
		ch.asked++
		ev.Kind, ev.Packet, ev.Filter = session.Unsubscribe, f.PacketID, f.Unsubscribe
		s.step(se, &ev, nil)
		s.follow(se, ev)
	case link.UpLimits:
		s.adjust(se, f.Limits)
	case link.UpOpen, link.UpClose, link.UpQuery:
		// handled above, and by the link
	}
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
			count(&se.tenant.flows[s.index].own)
			// It is forgotten in the batch in which it is kept for other partitions.
			p.Exact = s.set.cluster != nil && p.Will.QoS > mqtt.AtMostOnce && se.Recorded()
			s.publish(se, p.Will, p)
		} else {
			s.publish(se, m, p)
		}
	}
	if ev.Kind == session.Subscribe {
		s.subscribed(se, ev, fx)
	}
	h := s.holding
	s.holding = nil
	if ev.Kind == session.Unsubscribe {
		s.unsubscribed(se, ev, fx)
	}
	for i := range fx.Send {
		o := &fx.Send[i]
		if o.AfterCommit || h != nil && h.left > 0 && o.Kind == session.OutSuback {
			s.emitLater(se, o, e, h)
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
	s.answerAcked()
}

// emitLater has o said when it is committed, a SUBACK when the other brokers know of
// its routes too.
//
//go:noinline
func (s *Shard) emitLater(se *sess, o *session.Out, e *queue.Entry, h *hold) {
	w := waiter{se: se, epoch: se.Epoch(), out: *o, entry: e}
	if o.Kind == session.OutSuback && h != nil && h.left > 0 {
		w.hold = h
	}
	if o.AfterCommit {
		s.wait(se.space.ledger, w)
	} else {
		h.w = &w
	}
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
		ch.granted, ch.window = windowFirst, windowFirst
		s.tell(ch, link.DownFrame{Kind: link.DownOpened, SessionPresent: o.Present, Bytes: ch.granted})
		// Only now may deliveries follow.
		s.step(se, &session.Event{Kind: session.Credit, Bytes: o.Credit}, nil)
		s.pump(se)
	case session.OutDeliver:
		s.emitDelivery(se, o, e)
	case session.OutAck:
		s.nameRefusal(se, o.Packet)
		s.tell(ch, link.DownFrame{Kind: link.DownAck, Ack: o.Ack, PacketID: o.Packet, Reason: o.Reason})
	case session.OutSuback, session.OutUnsuback:
		if o.Packet == 0 {
			return // another connection of the client id has asked, and is told
		}
		ch.asked--
		if o.Kind == session.OutUnsuback {
			s.tell(ch, link.DownFrame{Kind: link.DownUnsuback, PacketID: o.Packet, Reasons: o.Reasons})
			return
		}
		s.nameRefusal(se, o.Packet)
		s.tell(ch, link.DownFrame{Kind: link.DownSuback, PacketID: o.Packet, Reasons: o.Reasons})
		s.startReplays(se, o)
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
			if o.Retry {
				return // it was not kept for that
			}
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
