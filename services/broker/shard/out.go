// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"slices"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
)

// How many bytes of publishes a channel may have under way before the broker has
// taken them, beyond one message of any size. The channels that have used a part
// of their window lately share that of their tenant, and the tenants that of the
// shard: what one sends ahead is not to keep others waiting on a link.
const (
	windowMost  = 256 << 10
	windowLeast = 1 << 10
	windowFirst = 16 << 10
	windowsOf   = 256 << 10 // of a tenant at most, where there are others
	windowsAll  = 1 << 20   // of all tenants of a shard
	windowsOne  = 2 << 20   // of a tenant that is alone: a gateway that stops and goes on costs more
	// windowEpoch is the time in which a channel counts, in milliseconds.
	windowEpoch = 100
)

// recent counts those that were active in this epoch and the one before.
type recent struct {
	epoch    int64
	now, was int
}

// count returns how many there are, with one more if it is new in this epoch.
func (r *recent) count(epoch int64, isNew bool) int {
	if r.epoch != epoch {
		r.was = r.now
		if r.epoch != epoch-1 {
			r.was = 0
		}
		r.epoch, r.now = epoch, 0
	}
	if isNew {
		r.now++
	}
	return max(1, r.now, r.was)
}

// window is what a channel that has used some of its own is granted.
func (s *Shard) window(ch *Channel) uint64 {
	epoch, l := s.now/windowEpoch, ch.lane()
	tenants := s.tenants.count(epoch, l.active != epoch)
	l.active = epoch
	channels := l.channels.count(epoch, ch.active != epoch)
	ch.active = epoch
	most := min(windowsOf, windowsAll/tenants)
	if s.alone() {
		most = windowsOne
	}
	return uint64(max(windowLeast, min(windowMost, most/channels)))
}

// out is the open batch of a shard to one link.
type out struct {
	link  *Link
	down  link.Down
	bytes int
	// serial and deadline tell whether the newest message of the batch is the
	// one that is to be delivered.
	serial   uint64
	deadline int64
}

// outBytes and outFrames are when a batch is handed over before its turn ends.
const (
	outBytes  = 256 << 10
	outFrames = 8 << 10
)

// outOf returns the open batch to the channel's link.
func (s *Shard) outOf(ch *Channel) *out {
	if ch.out == nil {
		for _, o := range s.outs {
			if o.link == ch.link {
				ch.out = o
				return o
			}
		}
		ch.out = &out{link: ch.link}
		s.outs = append(s.outs, ch.out)
	}
	return ch.out
}

// forgetLink drops the open batch to a link that is closed.
func (s *Shard) forgetLink(l *Link) {
	s.outs = slices.DeleteFunc(s.outs, func(o *out) bool { return o.link == l })
}

// tell appends a frame for a channel.
func (s *Shard) tell(ch *Channel, f link.DownFrame) {
	o := s.outOf(ch)
	f.Channel = ch.id
	o.down.Frames = append(o.down.Frames, f)
	if len(o.down.Frames) >= outFrames {
		o.hand(s.run)
	}
}

// deliver appends a delivery of m; serial names m, so that a message for many
// channels stands in the batch once.
func (s *Shard) deliverTo(ch *Channel, f link.DownFrame, m *mqtt.Message, expireAt int64, serial uint64) {
	o := s.outOf(ch)
	if serial == 0 || o.serial != serial || o.deadline != expireAt || len(o.down.Messages) == 0 {
		if o.bytes > outBytes {
			o.hand(s.run)
		}
		c := *m
		c.HasExpiry = expireAt != 0
		if c.HasExpiry {
			c.Expiry = uint32(max(0, (expireAt-s.now+999)/1000))
		}
		o.down.Messages = append(o.down.Messages, c)
		o.bytes += c.Size()
		o.serial, o.deadline = serial, expireAt
	}
	f.Kind, f.Channel, f.Slot = link.DownDeliver, ch.id, uint16(len(o.down.Messages)-1)
	o.down.Frames = append(o.down.Frames, f)
	s.spent += m.Size() + frameWork
	s.stats.QueueOut.Add(1)
	if se := ch.sess; se != nil {
		count(&se.tenant.flows[s.index].out)
	}
	if len(o.down.Frames) >= outFrames {
		o.hand(s.run)
	}
}

// hand gives the batch to the link and notes that its gateway is to be flushed.
func (o *out) hand(r *run) {
	if len(o.down.Frames) == 0 {
		return
	}
	if !o.link.closed() {
		o.link.gw.Receive(&o.down)
		r.flush(o.link.gw)
	}
	o.down.Reset()
	o.bytes, o.serial = 0, 0
}

func (r *run) flush(g link.Gateway) {
	if slices.Contains(r.gateways, g) {
		return
	}
	r.gateways = append(r.gateways, g)
}

// consume counts a frame of a channel against its window.
func (s *Shard) consume(ch *Channel, f *link.UpFrame) {
	cost := f.Cost()
	if cost == 0 {
		return
	}
	ch.taken += uint64(cost)
	if !ch.due && ch.taken+uint64(ch.window)/2 > ch.granted {
		ch.due = true
		s.windows = append(s.windows, ch)
	}
}

// grantWindows grants what is due, unless too much waits somewhere: then the
// windows of tenants of which much does stand still until it has drained, and if
// it is far too much those of all.
func (s *Shard) grantWindows() {
	if len(s.windows) == 0 {
		return
	}
	waits := s.set.backlog()
	left := s.windows[:0]
	for _, ch := range s.windows {
		if waits > 2*mailboxLimit || waits > mailboxLimit && ch.lane().waiting.Load() > laneQuantum {
			left = append(left, ch)
			continue
		}
		ch.due = false
		if ch.sess != nil {
			ch.window = uint32(s.window(ch))
			ch.granted = max(ch.granted, ch.taken+uint64(ch.window))
			s.tell(ch, link.DownFrame{Kind: link.DownWindow, Bytes: ch.granted})
		}
	}
	clear(s.windows[len(left):])
	s.windows = left
	s.stalled.Store(len(left) > 0)
}
