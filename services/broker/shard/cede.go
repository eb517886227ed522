// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"log/slog"
	"time"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/partition"
)

// A planned move keeps the connections of a partition's clients. It has four steps,
// each of which is over before the next begins:
//
//	pause   gateways send what they have begun to, and then nothing more (DownPause,
//	        UpPaused). The partition goes on: the clients get what they are owed.
//	seal    no other partition is served by it any more, and what a connection has that
//	        the store does not have is written (KindMoving).
//	leave   all of that is committed: the partition is forgotten, and the gateways hear
//	        that it has gone (DownMoved).
//	resume  the next owner has restored it, and the gateways open the channels again.
//
// From seal to leave nothing is sent to clients at QoS 1 or 2, so that what was written
// of them stays true.

const (
	// cedeMost is for how long a partition waits for its clients to be quiet, in
	// cedeEvery: those that are not are closed with 0x9D, so that they come back.
	cedeMost  = time.Second
	cedeEvery = 10 * time.Millisecond
	// cedeSoon is for how long a client is not paused that gets retained messages which
	// it asked for: that cannot go on elsewhere, and needs its acknowledgements.
	cedeSoon = 300 * time.Millisecond
)

// ceding is a partition that is about to move as planned.
type ceding struct {
	done     []func()
	channels []*Channel // that were open
	unpaused int        // that have not answered
	looks    time.Duration
	closed   bool // nothing of other partitions is taken any more
	sealed   bool
	// began and sealedAt are by the clock of the shard, in milliseconds.
	began, sealedAt int64
}

// pause is how far the pause of a channel is.
type pause struct {
	// token is that of its DownPause, 0 before that. paused: it was answered.
	token  uint64
	paused bool
	// stopped: it is paused because its tenant goes to other partitions.
	stopped bool
	// carried: what the connection has is written under the token.
	carried bool
}

// movable reports whether the gateway knows how a channel goes on elsewhere.
func (ch *Channel) movable() bool { return ch.link.features&link.FeatureMoves != 0 }

// Cede has a partition end here, because another broker is to serve it, and its clients
// keep their connections. done is called once, by any goroutine, when it is not served
// here any more, at the latest a little more than cedeMost later; at once if it is not.
// Serve takes it up again, if the move comes to nothing.
func (st *Set) Cede(p partition.ID, done func()) {
	s := st.shardOf(p)
	s.call(func() {
		sp := s.spaces[p]
		if sp == nil {
			sp = s.ceded[p]
		}
		switch {
		case sp == nil:
			delete(s.taking, p) // else it would be taken up while it is handed over
			done()
		case sp.ceding != nil:
			sp.ceding.done = append(sp.ceding.done, done)
		default:
			s.cede(sp, done)
		}
	})
}

// cede begins to pause the channels of a partition. No further ones are opened.
func (s *Shard) cede(sp *space, done func()) {
	c := &ceding{done: []func(){done}, began: s.now}
	sp.ceding = c
	var guests []*sess
	for _, head := range sp.heads {
		if head.guest {
			guests = append(guests, head)
			continue
		}
		for _, se := range head.all() {
			if se.ch != nil {
				c.channels = append(c.channels, se.ch)
			}
		}
	}
	s.orderChannels(c.channels)
	// A gateway opens a channel again in the client's own partition, which a guest is
	// not in.
	for _, se := range guests {
		s.endGuest(se, guestMoves)
	}
	s.lookCede(sp)
}

// lookCede pauses what can be paused of a partition, and seals it when its clients are
// quiet or have had their time; until then it looks again.
func (s *Shard) lookCede(sp *space) {
	c := sp.ceding
	if c.closed || s.spaces[sp.id] != sp {
		return
	}
	for _, ch := range c.channels {
		se := ch.sess
		if se == nil || ch.token != 0 || !ch.movable() || se.kin != nil {
			continue
		}
		s.hurry(se)
		if len(se.replays) == 0 || c.looks >= cedeSoon {
			ch.token = s.token(sp)
			c.unpaused++
			s.tell(ch, link.DownFrame{Kind: link.DownPause, Bytes: ch.token})
		}
	}
	if s.mayAllGo(c) || c.looks >= cedeMost {
		s.close(sp)
		return
	}
	c.looks += cedeEvery
	s.after(cedeEvery, func() { s.lookCede(sp) })
}

// tokenBits are those of a token that the number of its partition has.
const tokenBits = 48

// token is one for a connection that goes on elsewhere, maybe in another partition: no
// partition gives it a second time while somebody may still show it. Of a number it keeps
// tokenBits, numberBits and 8 of the epoch: after 256 epochs whose numbers begin anew, as those of
// a partition whose copies were all lost may, one could come again. Tokens last for seconds.
func (s *Shard) token(p *space) uint64 {
	return (uint64(p.id)+1)<<tokenBits | s.next(p)&(1<<tokenBits-1)
}

// paused notes that nothing comes from a client any more, and seals its partition if
// that was the last one to wait for.
func (s *Shard) paused(ch *Channel) {
	sp := s.spaces[ch.part]
	if sp == nil || ch.token == 0 || ch.paused {
		return
	}
	ch.paused = true
	c := sp.ceding
	if c == nil || ch.stopped {
		return // its tenant moves, or the partition sees it when it looks next
	}
	if c.unpaused--; c.unpaused == 0 && s.mayAllGo(c) {
		s.close(sp)
	}
}

// mayAllGo reports whether all clients of a partition that can go on elsewhere may.
func (s *Shard) mayAllGo(c *ceding) bool {
	for _, ch := range c.channels {
		if se := ch.sess; se != nil && ch.movable() && se.kin == nil && !s.quiet(ch) {
			return false
		}
	}
	return true
}

// quiet reports whether nothing comes from a client any more, and it has all that it is
// owed for what came.
func (s *Shard) quiet(ch *Channel) bool {
	return ch.paused && ch.asked == 0 && ch.sess.Settled() && len(ch.sess.replays) == 0
}

// close has a partition take nothing more of others, and seals it behind what they have
// sent before.
func (s *Shard) close(sp *space) {
	c := sp.ceding
	if c.closed {
		return
	}
	c.closed = true
	s.set.arriving.Lock()
	s.set.closing[sp.id] = true
	s.set.arriving.Unlock()
	s.call(func() { s.seal(sp) })
}

// seal ends what a partition does for others, and writes what the next owner is to know
// of its connections.
func (s *Shard) seal(sp *space) {
	c := sp.ceding
	if s.spaces[sp.id] != sp {
		return // it was lost
	}
	c.sealed, c.sealedAt = true, s.now
	delete(s.spaces, sp.id)
	s.ceded[sp.id] = sp
	s.set.unserve(sp.id)
	late := 0
	for _, ch := range c.channels {
		se := ch.sess
		if se == nil || se.gone {
			continue
		}
		s.writeAll(se)
		if ch.token == 0 || se.kin != nil || !s.quiet(ch) || !s.carry(se, ch.token, se.Carry(), s.now) {
			late++
			continue
		}
		ch.carried = true
	}
	s.carryOn(sp)
	if late > 0 {
		s.stats.Unquiet.Add(uint64(late))
		s.set.log.Info("clients are closed because their partition moves and they cannot go on elsewhere",
			slog.Int("partition", int(sp.id)), slog.Int("clients", late), slog.Int("of", len(c.channels)))
	}
	s.leaveSoon(sp)
}

// leaveSoon forgets a sealed partition when all that it has written is committed.
func (s *Shard) leaveSoon(sp *space) {
	l := sp.ledger
	s.wait(l, waiter{after: func() {
		// What came meanwhile, whether anybody waits for it or not.
		if len(l.waiters) > l.first || l.batch.Len() > 0 || l.durable+1 < l.ticket {
			s.leaveSoon(sp)
			return
		}
		sp.left = true
		s.lose(sp)
		c := sp.ceding
		s.set.log.Debug("a partition is left to its next owner", slog.Int("partition", int(sp.id)), slog.Int("clients", len(c.channels)),
			slog.Int64("paused_ms", c.sealedAt-c.began), slog.Int64("committed_ms", s.now-c.sealedAt), slog.Int64("forgotten_ms", s.set.now()-s.now))
	}})
}

// farewell is the last frame on the channel of a session whose partition is lost here.
func (s *Shard) farewell(se *sess) {
	ch, sp := se.ch, se.space
	switch {
	case sp.left && ch.carried:
		s.moved(ch)
	case sp.left && ch.movable():
		s.tell(ch, link.DownFrame{Kind: link.DownClose, Reason: mqtt.ServerMoved, Text: "the broker of this session has changed, and it was not quiet for long enough to go on; connect again"})
	default:
		s.tell(ch, link.DownFrame{Kind: link.DownClose, Reason: mqtt.ServerShuttingDown, Text: "the broker of this session has changed; connect again"})
	}
}

// uncarry takes back that a connection goes on elsewhere: it has ended here, before the
// partition was left.
func (s *Shard) uncarry(ch *Channel) {
	if ch.carried {
		ch.carried = false
		s.batch(s.ceded[ch.part]).Delete(partition.KeyU64(nil, ch.part, partition.KindMoving, ch.token))
	}
}
