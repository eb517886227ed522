// SPDX-License-Identifier: Apache-2.0

package session

import "github.com/manormq/manor/infra/mqtt"

// Stored is what the session record keeps; the other records have keys of
// their own.
type Stored struct {
	Expiry uint32
	// Attached says that a connection was open when the record was written.
	Attached bool
	// Durable says that there are records beside this one.
	Durable  bool
	Will     *mqtt.Will
	WillAt   int64
	ExpireAt int64
	NextID   uint16
}

// Stored returns what the session record must hold now.
func (s *Session) Stored() Stored {
	return Stored{
		Expiry: s.expiry, Attached: s.attached, Durable: s.durable, Will: s.will,
		WillAt: s.willAt, ExpireAt: s.expireAt, NextID: s.out.nextID,
	}
}

// Restore makes a session from its record. A session whose record says that it
// was attached lost its connection with the process: the caller steps it
// through Detach at the moment of the restart.
func Restore(id uint64, client mqtt.ClientID, r Stored) *Session {
	s := New(id, client)
	s.durable, s.recorded = r.Durable, true
	s.expiry, s.attached, s.will = r.Expiry, r.Attached, r.Will
	s.willAt, s.expireAt, s.out.nextID = r.WillAt, r.ExpireAt, r.NextID
	return s
}

// RestoreSubscription gives a restored session a subscription back.
func (s *Session) RestoreSubscription(sub mqtt.Subscription) { s.add(sub) }

// RestoreInbound gives a restored session a QoS 2 identifier back. What was
// stored is committed, so a duplicate is answered at once.
func (s *Session) RestoreInbound(id uint16, committed bool) {
	in := s.inbound()
	if in.ids == nil {
		in.ids = make(map[uint16]bool)
	}
	in.ids[id] = committed
}

// RestoreInflight gives a restored session a delivery back.
func (s *Session) RestoreInflight(id uint16, r Record) {
	s.out.flights.put(delivery{id: id, state: r.State, size: r.Size, seq: r.Seq, order: r.Order})
	s.out.order = max(s.out.order, r.Order+1)
	s.out.nextID = max(s.out.nextID, id)
}

// Inflights calls f for each delivery that is not fully acknowledged, in no
// order.
func (s *Session) Inflights(f func(id uint16, st State, seq uint64)) {
	s.out.flights.each(func(d *delivery) { f(d.id, d.state, d.seq) })
}

// Forget drops a delivery that another member of its shared group has taken
// over while this session had no connection.
func (s *Session) Forget(id uint16, fx *Effects) {
	if s.out.flights.get(id) != nil {
		s.out.flights.remove(id)
		s.save(fx, Record{Kind: DeleteInflight, Packet: id})
	}
}

// Inbounds calls f for each QoS 2 identifier that is not released, in no order.
func (s *Session) Inbounds(f func(id uint16)) {
	if s.in == nil {
		return
	}
	for id := range s.in.ids {
		f(id)
	}
}

// RestoreUnsettled says that the publish behind a restored identifier is being
// routed again: its duplicates wait for that.
func (s *Session) RestoreUnsettled(id uint16) {
	if in := s.inbound(); in.ids != nil {
		if _, ok := in.ids[id]; ok {
			in.ids[id] = false
		}
	}
}
