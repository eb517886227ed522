// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/session"
)

const (
	// resumeWait is for how long a session waits for its connection after a planned
	// move, in milliseconds. Then it has lost it.
	resumeWait = 10_000
	// resumeLeast is for how long it waits at each further owner, whatever the clocks of
	// the brokers say, in milliseconds.
	resumeLeast = 2000
	// lateBytes bounds what a session that waits has at QoS 0, where nothing else
	// bounds it, in bytes.
	lateBytes = 64 << 10
)

// awaited is a connection that was open at the former owner of the partition and is to
// be opened here.
type awaited struct {
	token uint64
	// since is when the first of those owners let go of it, by its clock, and until when
	// it is lost, in Unix milliseconds.
	since, until int64
	carried      session.Carried
	// late are messages at QoS 0, which wait nowhere else.
	late     []late
	lateSize int
}

// resumeUntil is up to when a session waits for its connection that was let go of at
// since, now that it is restored.
func resumeUntil(since, now int64) int64 {
	return min(max(since+resumeWait, now+resumeLeast), now+resumeWait)
}

// late is a message at QoS 0 for a session that waits for its connection.
type late struct {
	msg      *mqtt.Message
	retain   bool
	ids      []uint32
	expireAt int64
	serial   uint64
}

// goOn opens a channel for a connection that goes on here.
func (s *Shard) goOn(ch *Channel, o *link.Open) {
	se := s.session(ch.tenant, o.ClientID)
	if se == nil || se.awaited == nil || se.awaited.token != o.Resume {
		s.stats.Unresumed.Add(1)
		f := link.DownFrame{Kind: link.DownRefused, Reason: mqtt.ServerShuttingDown, Text: "the broker of this session has changed; connect again"}
		if se != nil && se.ch != nil {
			f.Reason, f.Text = mqtt.SessionTakenOver, closeText(mqtt.SessionTakenOver)
		}
		s.tell(ch, f)
		return
	}
	a := s.endWait(se)
	s.stats.Resumed.Add(1)
	se.ch, ch.sess = ch, se
	ch.tenant.connections.Add(1)
	a.carried.Credit = o.Credit
	s.step(se, &session.Event{Kind: session.Resume, Carried: &a.carried}, nil)
	for i := range a.late {
		m := &a.late[i]
		v := view{msg: m.msg, owned: true, serial: m.serial, expireAt: m.expireAt}
		s.deliverNow(se, &v, m.retain, m.ids)
	}
	s.due(se)
}

// endWait forgets that a session waits for its connection.
func (s *Shard) endWait(se *sess) *awaited {
	a := se.awaited
	se.awaited = nil
	s.batch(se.space).Delete(partition.KeyU64(nil, se.space.id, partition.KindMoving, a.token))
	return a
}

// unresumed ends the connection of a session to which it has not come in time: the
// client has lost it.
func (s *Shard) unresumed(se *sess) {
	s.dropLate(se, s.endWait(se))
	s.setOnline(se, false)
	s.loseConnection(se)
}

// overtaken ends the connection that a session waits for because another one has come.
func (s *Shard) overtaken(se *sess, quiet bool) {
	s.dropLate(se, s.endWait(se))
	s.setOnline(se, false)
	s.stats.TakeOvers.Add(1)
	se.disconnectedAt = s.now
	s.step(se, &session.Event{Kind: session.TakeOver, Quiet: quiet}, nil)
}

func (s *Shard) dropLate(se *sess, a *awaited) {
	for range a.late {
		s.drop(se, dropSlow)
	}
}

// keepLate keeps a message at QoS 0 for a session that waits for its connection.
func (s *Shard) keepLate(se *sess, v *view, retain bool, ids []uint32) {
	a := se.awaited
	if size := v.msg.Size() + itemOverhead; a.lateSize+size <= lateBytes {
		a.lateSize += size
		a.late = append(a.late, late{v.keep(), retain, append([]uint32(nil), ids...), v.expireAt, v.serial})
		return
	}
	s.drop(se, dropSlow)
}
