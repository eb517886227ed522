// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"slices"
	"strconv"
	"strings"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/topic"
	"github.com/manormq/manor/services/broker/queue"
	"github.com/manormq/manor/services/broker/session"
)

// kin are the sessions of one client id whose tenant allows several connections
// (allow_multiple_sessions): one for each connection, with a queue and a window
// of its own, while there are two or more. They have the same subscriptions. The
// first is the head, which the shard knows by the client id; only it takes part
// in shared subscriptions. Who closes while others stay ends; the last one to
// close is the session that is left. All are of one shard.
type kin struct {
	members []*sess
	// balance: a message goes to one of them, and only the head has routes. Else,
	// fanout, each has its own.
	balance bool
	turn    int
}

// all are the sessions of se's client id.
func (se *sess) all() []*sess {
	if se.kin == nil {
		return []*sess{se}
	}
	return slices.Clone(se.kin.members)
}

func (se *sess) head() bool { return se.kin == nil || se.kin.members[0] == se }

// others reports whether another connection goes on with what the session is: one
// that is stored only with another that is.
func (se *sess) others() bool {
	return se.kin != nil && slices.ContainsFunc(se.kin.members, func(m *sess) bool {
		return m != se && m.ch != nil && (m.Durable() || !se.Durable())
	})
}

// routed reports whether a subscription of the session is in the routes.
func (se *sess) routed(filter string) bool {
	return se.head() || !se.kin.balance && !strings.HasPrefix(filter, topic.SharePrefix)
}

// keeps reports whether a message of QoS 1 or 2 for the session, or for one of
// its kin in its place, is stored.
func (se *sess) keeps() bool {
	return se.Durable() || se.kin != nil && se.kin.balance && slices.ContainsFunc(se.kin.members, func(m *sess) bool { return m.Durable() })
}

// recordName is under what the session record stands. A client id has no U+0000,
// as no text in MQTT has.
func (se *sess) recordName() string {
	if se.nth == 0 {
		return string(se.ClientID)
	}
	return string(se.ClientID) + "\x00" + strconv.FormatUint(uint64(se.nth), 10)
}

// splitName is the reverse of recordName.
func splitName(name string) (client mqtt.ClientID, nth uint32) {
	id, n, _ := strings.Cut(name, "\x00")
	v, _ := strconv.ParseUint(n, 10, 32) // 0 for a name without
	return mqtt.ClientID(id), uint32(v)
}

// offline is the session of the client id that has no connection, or nil.
func (se *sess) offline() *sess {
	for _, m := range se.all() {
		if m.ch == nil {
			return m
		}
	}
	return nil
}

// join makes another session of head's client id. It has no connection yet.
func (s *Shard) join(head *sess, ch *Channel, o *link.Open) *sess {
	se := &sess{tenant: ch.tenant, space: head.space}
	se.Session = *session.New(s.sid(head.space, o), o.ClientID)
	se.tenant.all.Add(1)
	if o.SessionExpiry > 0 {
		ch.tenant.sessions.Add(1)
	}
	s.enkin(head, se, o.Limits.Settings.Balance)
	return se
}

// enkin adds a session to head's kin.
func (s *Shard) enkin(head, se *sess, balance bool) {
	if head.kin == nil {
		head.kin = &kin{members: []*sess{head}, balance: balance}
	}
	for _, m := range head.kin.members {
		se.nth = max(se.nth, m.nth+1)
	}
	head.kin.members = append(head.kin.members, se)
	se.kin = head.kin
}

// inherit gives a new member the subscriptions that the head has. It is attached.
func (s *Shard) inherit(se *sess) {
	head := se.kin.members[0]
	subs := slices.Clone(head.Subscriptions())
	if len(subs) > 0 {
		s.step(se, &session.Event{Kind: session.Subscribe, Subs: subs, Limit: -1}, nil)
	}
	if se.kin.balance && se.Durable() {
		for i := range subs {
			s.addRoute(head, &subs[i], false) // messages may be stored from now on
		}
	}
}

// part takes a session that has ended out of its kin. The next one is the head,
// and has the routes that it had not.
func (s *Shard) part(se *sess) {
	k := se.kin
	if k == nil {
		return
	}
	wasHead := se.head()
	k.members = slices.DeleteFunc(k.members, func(m *sess) bool { return m == se })
	se.kin = nil
	if len(k.members) == 0 {
		return
	}
	head := k.members[0]
	if wasHead {
		s.put(head)
		for _, sub := range head.Subscriptions() {
			if k.balance || strings.HasPrefix(sub.Filter, topic.SharePrefix) {
				s.addRoute(head, &sub, true)
			}
		}
	}
	if len(k.members) == 1 {
		head.kin = nil
	}
}

// follow has the kin of se do what its client said about subscriptions.
func (s *Shard) follow(se *sess, ev session.Event) {
	if se.kin == nil {
		return
	}
	ev.Packet, ev.Subs, ev.Filter = 0, slices.Clone(ev.Subs), slices.Clone(ev.Filter)
	for _, m := range se.all() {
		if m != se {
			e := ev
			s.step(m, &e, nil)
		}
	}
}

// enqueueKin brings a message to the sessions of a client id that has several.
func (s *Shard) enqueueKin(se *sess, v *view, qos mqtt.QoS, retain bool, ids []uint32, group string, share bool) {
	switch {
	case se.kin.balance:
		s.enqueue(se.kin.next(), v, qos, retain, ids, group, share)
		return
	case group == "":
		s.enqueue(se, v, qos, retain, ids, group, share)
		return
	}
	// A group knows the head alone. Its message must not go on to another member
	// when one of the connections closes.
	for _, m := range se.all() {
		s.enqueue(m, v, qos, retain, ids, "", share)
	}
}

// next is who gets the next message: those that have a connection, in turn.
func (k *kin) next() *sess {
	for range k.members {
		k.turn++
		if m := k.members[k.turn%len(k.members)]; m.ch != nil {
			return m
		}
	}
	return k.members[0]
}

// keeper is who goes on when nobody has a connection: the first one that is
// stored, if there is one.
func keeper(members []*sess) *sess {
	return members[max(0, slices.IndexFunc(members, (*sess).durable))]
}

// leaveKin ends a session whose connection has closed while others have the same
// client id. In balance what it had not acknowledged goes to them; in fanout they
// had it, too.
func (s *Shard) leaveKin(se *sess, ev *session.Event) {
	never, asked := uint32(0), ev.Expiry
	ev.Expiry = &never
	if se.kin.balance && !s.bequeath(se) {
		// The rest is on its way to the store. Until it can be read somebody else
		// may have the session, and what waits for it.
		s.wait(se.space.ledger, waiter{after: func() {
			switch {
			case se.gone || se.ch != nil:
			case se.others():
				s.leaveKin(se, ev)
			default: // it is the last one now
				ev.Expiry = asked
				s.step(se, ev, nil)
			}
		}})
		return
	}
	s.step(se, ev, nil)
	if !se.gone { // it was to end with a delay
		s.step(se, &session.Event{Kind: session.Discard}, nil)
	}
}

// bequeath gives what waits for a session and what it has not acknowledged to its
// kin; what was sent comes first. It reports false if not everything can be read
// yet.
func (s *Shard) bequeath(se *sess) (done bool) {
	s.writeAll(se)
	if se.queue == nil {
		return true
	}
	done = true
	var entries []*queue.Entry
	for _, f := range se.flights(func(st session.State) bool { return st != session.Released }) {
		e, err := se.queue.Reload(f.seq)
		if err != nil {
			s.drop(se, dropUnreadable)
			continue
		}
		fx := session.Effects{}
		se.Forget(f.id, &fx)
		se.queue.Release(f.seq, s.batch(se.space))
		s.save(se, fx.Save)
		entries = append(entries, e)
	}
	for se.queue.Len() > 0 {
		e := s.head(se)
		if e == nil {
			if done = !se.queue.Waits(); done { // Head has said why in the log
				s.drop(se, dropUnreadable)
			}
			break
		}
		se.queue.Drop(s.batch(se.space))
		s.left(se, int64(e.Size()))
		entries = append(entries, e)
	}
	others := slices.DeleteFunc(se.all(), func(m *sess) bool { return m == se })
	for _, e := range entries {
		to := se.kin.next()
		if to == se || to.ch == nil { // at a restart nobody has a connection
			to = keeper(others)
		}
		s.stats.Redelivered.Add(1)
		s.serial++
		m := *e.Message
		m.QoS = e.QoS
		v := view{msg: &m, owned: true, serial: s.serial, expireAt: e.ExpireAt, retain: e.Retain}
		s.enqueue(to, &v, e.QoS, e.Retain, e.IDs, e.Group, false)
	}
	return done
}

// loseKin leaves one session of those that had connections when the last run of
// the broker ended, and returns it: one that is stored, if there is one.
func (s *Shard) loseKin(se *sess) *sess {
	all := se.all()
	stays := keeper(all)
	for _, m := range all {
		if m != stays && m.Attached() {
			m.disconnectedAt = s.now
			s.leaveKin(m, &session.Event{Kind: session.Detach, Cause: session.Lost})
		}
	}
	return stays
}

func (se *sess) durable() bool { return se.Durable() }
