// SPDX-License-Identifier: Apache-2.0

package session

import "github.com/manormq/manor/infra/mqtt"

// Session is one session. It is owned by its shard and not safe for concurrent
// use. Times are Unix milliseconds throughout; zero means never.
type Session struct {
	// ID is the sid: unique in its partition for ever.
	ID       uint64
	ClientID mqtt.ClientID

	expiry uint32
	// durable says that the session outlives its connection and so is kept in
	// the store; it never changes after the first Attach. recorded says that
	// only its record is.
	durable, recorded bool
	// attached says that a connection is open; epoch counts them, so that what
	// was begun for an earlier one is recognised.
	attached bool
	epoch    uint32

	will     *mqtt.Will
	willAt   int64
	expireAt int64
	// retryAt is when deliveries are looked for that are to be sent again on
	// this connection, once retry seconds have passed since they were sent.
	retryAt int64

	subs []mqtt.Subscription
	// index says where a filter stands in subs, once there are many.
	index filters

	out outbound
	// in is made with the first publish above QoS 0: most sessions only listen.
	in    *inbound
	inMax uint16
	retry uint16
}

// New makes a session that nothing is attached to yet.
func New(id uint64, client mqtt.ClientID) *Session {
	return &Session{ID: id, ClientID: client}
}

// EventKind is what happens to a session.
type EventKind uint8

// The events.
const (
	// Attach: a connection opens the session.
	Attach EventKind = iota + 1
	// TakeOver: another connection will attach; the present one is closed.
	TakeOver
	// Detach: the connection has gone.
	Detach
	// Publish: the client published.
	Publish
	// Routed: a publish of the client is committed everywhere it must be.
	Routed
	// Ack: the client acknowledged.
	Ack
	// TooLarge: the gateway could not send a delivery [MQTT-3.1.2-25].
	TooLarge
	// Subscribe and Unsubscribe change the subscriptions.
	Subscribe
	Unsubscribe
	// Enqueued: the queue has a message at its head.
	Enqueued
	// Credit: the gateway grants bytes; the first one after Attach starts the
	// deliveries.
	Credit
	// Tick: a deadline may have come.
	Tick
	// Discard: the session ends now.
	Discard
	// Adjust: the tenant has changed what holds for the session.
	Adjust
	// Resume: the connection that the session has goes on, at another broker. It
	// comes instead of an Attach, and nothing is sent again.
	Resume
)

// Event is one event. Which fields are read depends on Kind.
type Event struct {
	Kind    EventKind
	Open    *Opening            // Attach
	Carried *Carried            // Resume
	Cause   Cause               // Detach
	Ack     mqtt.AckKind        // Ack
	Reason  mqtt.ReasonCode     // Ack, Routed
	QoS     mqtt.QoS            // Publish, Enqueued
	Packet  uint16              // Publish, Ack, TooLarge, Subscribe, Unsubscribe
	Token   Token               // Routed
	Seq     uint64              // Enqueued
	Size    int                 // Enqueued: bytes that count against credit
	Bytes   uint64              // Credit: total granted since Attach
	Expiry  *uint32             // Detach: a new Session Expiry Interval, or nil
	Subs    []mqtt.Subscription // Subscribe
	Filter  []string            // Unsubscribe
	// Limit is the most subscriptions that the session may hold, negative for
	// no limit.
	Limit int64 // Subscribe
	// Refused are reasons why Subs are refused if they are new to the session, by their
	// index; 0 refuses nothing, and nil none.
	Refused []mqtt.ReasonCode // Subscribe
	// Quiet keeps the will from being sent.
	Quiet bool // TakeOver
	// Window and Retry are as in Opening.
	Window uint16 // Adjust
	Retry  uint16 // Adjust
}

// Opening is what a connection brings.
type Opening struct {
	Present bool // answer Session Present
	// Asked says that the client has asked for the session that it may have had. That there is
	// none is said after a commit then: an owner that is deposed and does not know it would say
	// so of a session that began at the next one.
	Asked  bool
	Expiry uint32
	Will   *mqtt.Will
	// ReceiveMaximum is the client's, InboundMaximum ours; both 1 to 65,535.
	ReceiveMaximum uint16
	InboundMaximum uint16
	// Credit is what the gateway grants at first, in bytes.
	Credit uint64
	// Window bounds ReceiveMaximum; 0 does not.
	Window uint16
	// Retry is after how many seconds deliveries that are not acknowledged
	// are sent again on the same connection. 0 is never: MQTT 5 forbids it
	// [MQTT-4.4.0-1], 3.x allows it (§4.4 of 3.1.1).
	Retry uint16
}

// Cause is why a connection has gone.
type Cause uint8

// The causes of a Detach.
const (
	Normal Cause = iota + 1 // DISCONNECT 0x00: the will is deleted
	Lost                    // everything else
)

// Step lets e happen at now and appends what follows from it to fx.
func (s *Session) Step(now int64, e *Event, fx *Effects) {
	switch e.Kind {
	case Attach:
		s.attach(now, e.Open, fx)
	case TakeOver:
		s.takeOver(now, e.Quiet, fx)
	case Detach:
		s.detach(now, e, fx)
	case Publish:
		s.publish(e, fx)
	case Routed:
		s.routed(e, fx)
	case Ack:
		s.ack(now, e, fx)
	case TooLarge:
		s.tooLarge(now, e.Packet, fx)
	case Subscribe:
		s.subscribe(e, fx)
	case Unsubscribe:
		s.unsubscribe(e, fx)
	case Enqueued:
		s.enqueued(now, e, fx)
	case Credit:
		s.credit(now, e.Bytes, fx)
	case Tick:
		s.tick(now, fx)
	case Discard:
		s.discard(fx)
	case Adjust:
		s.adjust(now, e, fx)
	case Resume:
		s.resume(now, e.Carried, fx)
	}
}

// Attached reports whether a connection is open.
func (s *Session) Attached() bool { return s.attached }

// Epoch counts the connections that the session has had.
func (s *Session) Epoch() uint32 { return s.epoch }

// Durable reports whether the session is kept in the store.
func (s *Session) Durable() bool { return s.durable }

// Recorded reports whether the store has a session record.
func (s *Session) Recorded() bool { return s.durable || s.recorded }

// Expiry is the Session Expiry Interval in seconds.
func (s *Session) Expiry() uint32 { return s.expiry }

// Inflight is how many deliveries are not fully acknowledged.
func (s *Session) Inflight() int { return s.out.flights.n }

// Subscriptions are the session's; the slice must not be changed.
func (s *Session) Subscriptions() []mqtt.Subscription { return s.subs }

// Deadline is the next moment at which a Tick does something, or zero.
func (s *Session) Deadline() int64 {
	at := s.willAt
	if at == 0 || s.expireAt != 0 && s.expireAt < at {
		at = s.expireAt
	}
	if at == 0 || s.retryAt != 0 && s.retryAt < at {
		at = s.retryAt
	}
	return at
}
