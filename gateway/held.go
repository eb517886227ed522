// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/manormq/manor/gateway/conn"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/tenancy/events"
	"github.com/manormq/manor/tenancy/quota"
)

// held are the messages for a client that wait for a rate out, in their order. They are no
// more than what the broker was granted: nothing of what waits counts as delivered. Answers
// pass by. The connection's mutex guards it.
type held struct {
	list []heldMessage
	next int // in list
	cost int // what they count of the credit
	// queued: in the line of the tenant. of counts those that wait for the same quota that
	// gateways share, this connection among them; nil if it does not.
	queued bool
	of     *atomic.Int64
}

// heldMessage is a DownDeliver and its message, in memory of its own.
type heldMessage struct {
	message  mqtt.Message
	ids      []uint32
	at       int64 // when it came, in Unix seconds
	packetID uint16
	qos      mqtt.QoS
	retain   bool
	dup      bool
}

// holds reports whether something waits.
func (c *connection) holdsLocked() bool { return c.held != nil && c.held.next < len(c.held.list) }

// heldCostLocked is what waits, in bytes of credit.
func (c *connection) heldCostLocked() int {
	if c.held == nil {
		return 0
	}
	return c.held.cost
}

// passedLocked reports whether a message may be passed to the client now. If not it is kept,
// and passed when it may be.
func (c *connection) passedLocked(r *rates, p *passing, b *link.Down, f *link.DownFrame) bool {
	m := &b.Messages[f.Slot]
	waits := c.holdsLocked()
	if waits && f.Dup && c.held.has(f) {
		// The broker has sent it again (the setting retry_interval), as it has heard nothing of
		// it: the client is yet to get it, once, and it takes from the rate once.
		c.m.Skip(m, len(f.SubscriptionIDs))
		c.markLocked()
		return false
	}
	if !waits && c.mayPassLocked(r, p, passedSize(m)) {
		return true
	}
	h := c.held
	if h == nil {
		h = &held{}
		c.held = h
	}
	x := heldMessage{message: m.Clone(), at: p.clock().Unix(), packetID: f.PacketID, qos: f.QoS, retain: f.Retain, dup: f.Dup}
	if len(f.SubscriptionIDs) > 0 {
		x.ids = append(x.ids, f.SubscriptionIDs...)
	}
	h.list = append(h.list, x)
	h.cost += x.cost()
	if !waits {
		c.awaitRateLocked(r, time.Now(), true)
	}
	return false
}

// has reports whether the delivery of that Packet Identifier waits.
func (h *held) has(f *link.DownFrame) bool {
	return f.QoS > mqtt.AtMostOnce && slices.ContainsFunc(h.list[h.next:], func(x heldMessage) bool { return x.packetID == f.PacketID && x.qos == f.QoS })
}

// passedSize is about what a message is written with.
func passedSize(m *mqtt.Message) int64 { return int64(m.Size()) + 4 }

func (x *heldMessage) cost() int { return link.DeliverCost(x.message.Size(), len(x.ids)) }

// awaitRateLocked has c go on when it may. first says that it begins to wait.
func (c *connection) awaitRateLocked(r *rates, now time.Time, first bool) {
	own := c.ownWaitLocked(r, now)
	all, byBytes := r.shared.out.Wait(now)
	q, kind := deliveryRate, quota.DeliveryRate
	switch {
	case own > all:
		q = bytesOutRateClient
	case byBytes:
		q, kind = bytesOutRate, quota.BytesOutRate
	}
	if first {
		c.slowed(q)
	}
	if q == bytesOutRateClient {
		c.awaitOwnLocked(now, own)
		return
	}
	if of := c.gw.sleeps(c.state, kind); of != c.held.of {
		c.uncountHeldLocked()
		of.Add(1)
		c.held.of = of
	}
	if !c.held.queued {
		c.held.queued = true
		r.shared.line.join(c.gw, r.shared, c, max(all, shortestWait))
	}
}

// ownWaitLocked is how long c has to wait for its own rate out.
func (c *connection) ownWaitLocked(r *rates, now time.Time) time.Duration {
	if c.ownLeft > 0 {
		return 0
	}
	wait, _ := r.out.Wait(now)
	return wait
}

// awaitOwnLocked has c go on after a time that its own rate needs.
func (c *connection) awaitOwnLocked(now time.Time, wait time.Duration) {
	c.uncountHeldLocked()
	c.throttleOutLocked(now, max(wait, shortestWait))
}

// uncountHeldLocked takes c from those that wait for what gateways share.
func (c *connection) uncountHeldLocked() {
	if h := c.held; h != nil && h.of != nil {
		h.of.Add(-1)
		h.of = nil
	}
}

// passHeldLocked passes up to most messages that wait, as many as may be, and none behind
// mostBytes, and returns how many; full says that they are as many as that. The caller flushes.
func (c *connection) passHeldLocked(p *passing, most, mostBytes int64) (n int64, full bool) {
	h, r := c.held, c.rates.Load()
	for bytes := int64(0); !c.ending && c.holdsLocked(); n++ {
		x := &h.list[h.next]
		if full = n >= most || bytes >= mostBytes; full {
			break
		}
		bytes += passedSize(&x.message)
		if !c.mayPassLocked(r, p, passedSize(&x.message)) {
			break
		}
		took := *x
		*x = heldMessage{}
		h.next++
		h.cost -= took.cost()
		c.passLocked(&took, p.clock().Unix())
	}
	switch {
	case h.next == len(h.list):
		h.list, h.next = nil, 0
	case h.next > len(h.list)/2:
		left := copy(h.list, h.list[h.next:])
		clear(h.list[left:])
		h.list, h.next = h.list[:left], 0
	}
	if !c.holdsLocked() {
		c.uncountHeldLocked()
	}
	return n, full
}

// passLocked passes a message that has waited, unless it has expired meanwhile
// [MQTT-3.3.2-5, -6].
func (c *connection) passLocked(x *heldMessage, now int64) {
	m := &x.message
	if past := max(now-x.at, 0); m.HasExpiry && past > 0 {
		if past >= int64(m.Expiry) {
			c.m.Skip(m, len(x.ids))
			c.droppedHeldLocked(1, "has expired while it waited for a rate")
			if x.qos > mqtt.AtMostOnce {
				c.tooLarge = append(c.tooLarge, x.packetID)
			}
			c.markLocked()
			return
		}
		m.Expiry -= uint32(past)
	}
	b := link.Down{Messages: []mqtt.Message{*m}}
	c.takeLocked(&b, &link.DownFrame{
		Kind: link.DownDeliver, Channel: c.channel, QoS: x.qos, Retain: x.retain, Dup: x.dup, PacketID: x.packetID, SubscriptionIDs: x.ids,
	})
}

// droppedHeldLocked counts and tells of messages that are not passed.
func (c *connection) droppedHeldLocked(n int, why string) {
	c.gw.metrics.drops[conn.DropHeld].Add(float64(n))
	if c.state != nil {
		c.state.drops[conn.DropHeld].Add(uint64(n))
	}
	c.tell(c.tenant, events.Event{Kind: events.Dropped, Reason: conn.DropHeld.String(), Why: why, Count: n})
}

// goOnLocked passes what c may of what waits after a wait of its own. The caller flushes.
func (c *connection) goOnLocked() {
	if c.sleeps != nil {
		c.sleeps.out.end()
	}
	if c.ending || !c.holdsLocked() || c.held.queued {
		return
	}
	p := passing{}
	c.passHeldLocked(&p, math.MaxInt64, math.MaxInt64)
	p.end()
	if c.holdsLocked() && !c.ending {
		c.awaitRateLocked(c.rates.Load(), time.Now(), false)
	}
}

// dropHeldLocked forgets what waits at the end of the connection: above QoS 0 the broker
// has it still.
func (c *connection) dropHeldLocked() {
	c.uncountHeldLocked()
	h := c.held
	if !c.holdsLocked() {
		return
	}
	n := 0
	for i := range h.list[h.next:] {
		if h.list[h.next+i].qos == mqtt.AtMostOnce {
			n++
		}
	}
	if n > 0 {
		c.droppedHeldLocked(n, "waited for a rate when the connection ended")
	}
	h.list, h.next, h.cost = nil, 0, 0
}
