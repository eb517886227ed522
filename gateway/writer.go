// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"net"
	"time"

	"github.com/manormq/manor/gateway/conn"
	"github.com/manormq/manor/gateway/uplink"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/load"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/tenancy/events"
	"github.com/manormq/manor/tenancy/quota"
)

// Output buffers are borrowed while there is something to write. What reaches
// outFlush bytes is written before the turn ends: a buffer that grows further
// leaves the processor's cache, and its memory is not worth keeping.
const (
	outBuffer    = 2 << 10
	outFlush     = 32 << 10
	outBufferMax = 4 * outFlush
)

// output is what waits to be written to a connection.
type output struct{ b []byte }

// borrowOut makes sure that there is an output buffer.
func (c *connection) borrowOut() {
	if c.out == nil {
		c.out, _ = c.gw.outputs.Get().(*output)
	}
}

// releaseOut gives the output buffer back, with what is in it.
func (c *connection) releaseOut() {
	if c.out != nil && cap(c.out.b) <= outBufferMax {
		c.out.b = c.out.b[:0]
		c.gw.outputs.Put(c.out)
	}
	c.out = nil
}

// fromBroker is the Gateway as the handler of its links.
type fromBroker Gateway

// Receive implements uplink.Handler: it encodes and marks, and does no more.
func (h *fromBroker) Receive(l *uplink.Link[connection], b *link.Down) {
	g := (*Gateway)(h)
	deliveries := 0
	p := passing{}
	defer p.end()
	for i := range b.Frames {
		f := &b.Frames[i]
		if f.Kind == link.DownLoad {
			g.load.told(l, f.Load)
		}
		switch f.Kind {
		case link.DownAnswer:
			g.held(f.Answer)
			continue
		case link.DownGoaway, link.DownLoad, link.DownTable:
			continue
		case link.DownNote:
			if f.Note.Loose {
				g.noted(f.Note)
				continue
			}
		default:
		}
		c := l.Channels.Get(f.Channel)
		if c == nil {
			continue // it has ended, and the broker will hear of it
		}
		switch f.Kind {
		case link.DownMoved:
			c.moved(l, f.Channel, f.Moved)
			continue
		case link.DownDeliver:
			deliveries++
		default:
		}
		c.receive(l, b, f, &p)
	}
	if deliveries > 0 {
		g.metrics.deliveries.Add(float64(deliveries))
	}
}

// Flush implements uplink.Handler. A loop that is in a batch flushes at its end,
// for all.
func (h *fromBroker) Flush() {
	g := (*Gateway)(h)
	if g.loops.busy.Load() == 0 {
		g.flush()
	}
}

// FlushEarly implements uplink.Handler.
func (h *fromBroker) FlushEarly() {
	g := (*Gateway)(h)
	if g.loops.busy.Load() == 0 {
		g.flushEarly()
	}
}

// Lost implements uplink.Handler: nothing is resumed silently, the clients come
// back by themselves.
func (h *fromBroker) Lost(l *uplink.Link[connection], _ error) {
	g := (*Gateway)(h)
	g.load.told(l, load.Calm)
	l.Channels.All(func(c *connection) {
		c.mu.Lock()
		switch {
		case c.link != l: // it has just been moved to another
		case c.opening != nil:
			c.unlinkedLocked()
		default:
			c.endLocked(unreachable)
		}
		c.answeredLocked()
		c.mu.Unlock()
	})
	g.flush()
}

// receive takes one frame of its channel at l.
func (c *connection) receive(l *uplink.Link[connection], b *link.Down, f *link.DownFrame, p *passing) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.link != l || c.channel != f.Channel {
		return // it has left that channel meanwhile, to wait for a broker
	}
	if c.ending {
		if f.Kind == link.DownClose {
			c.answeredLocked()
		}
		return
	}
	switch f.Kind {
	case link.DownDeliver:
		if r := c.rates.Load(); r != nil && !c.passedLocked(r, p, b, f) {
			return
		}
	case link.DownPause:
		c.pauseLocked(f.Bytes)
		return
	case link.DownNote:
		if f.Note.Count > 0 {
			c.tell(c.tenant, eventOf(f.Note))
			return
		}
		c.m.Receive(nil, b, f)
		return
	default:
	}
	if o := c.opening; o != nil {
		c.openedLocked(f.Kind == link.DownOpened)
		if o.open.Resume != 0 && f.Kind == link.DownOpened {
			c.reopenedLocked(f.Bytes)
			return
		}
	}
	c.takeLocked(b, f)
}

// takeLocked appends what a frame means to the client.
func (c *connection) takeLocked(b *link.Down, f *link.DownFrame) {
	c.borrowOut()
	before := len(c.out.b)
	out, r := c.m.Receive(c.out.b, b, f)
	if r.Payload != nil && !c.bare() {
		out, r.Payload = append(out, r.Payload...), nil
	}
	c.out.b = out
	c.appendedLocked(len(out)-before+len(r.Payload), f.Kind != link.DownDeliver)
	if f.Kind == link.DownDeliver {
		c.delivered++
	}
	if r.Denied {
		c.gw.metrics.drops[conn.DropDenied].Inc()
		c.tell(c.tenant, events.Event{Kind: events.Dropped, Reason: conn.DropDenied.String(), Why: "had waited, and is not granted any more"})
		if f.QoS > mqtt.AtMostOnce {
			c.tooLarge = append(c.tooLarge, f.PacketID)
		}
		c.markLocked()
	}
	if r.TooLarge {
		c.gw.metrics.drops[conn.DropSize].Inc()
		c.tell(c.tenant, events.Event{Kind: events.Dropped, Reason: conn.DropSize.String(), Why: "larger than the client's maximum packet size"})
		c.warnOut = max(c.warnOut, warnDue)
		if f.QoS > mqtt.AtMostOnce {
			c.tooLarge = append(c.tooLarge, f.PacketID)
		}
		c.markLocked()
	}
	if r.Opened {
		c.opened = true
		c.silence.Store(c.m.KeepAlive().Milliseconds())
		c.lookLocked()
		if c.m.MayHold() {
			c.holdLocked(false)
		}
		c.gw.metrics.connects.WithLabelValues(c.version().String(), mqtt.Success.String()).Inc()
		c.tell(c.tenant, events.Event{Kind: events.Connected})
	}
	if r.Opened || r.Resume {
		c.wakeLocked()
	}
	switch {
	case r.Close.Ended:
		c.endLocked(r.Close)
	case len(c.out.b) == 0:
		c.releaseOut()
	default:
		if len(c.out.b)+len(r.Payload) < outFlush {
			c.markLocked()
			break
		}
		// Credit is granted by a flush, and who has c in its list already may be
		// busy with others for long: it goes into the next list too.
		c.writeLocked(r.Payload)
		c.dirty = true
		c.gw.markDirty(c)
	}
}

// awaitsLocked reports whether the broker is to hear of the close before the client
// is cut off: whoever looks after that, as through another gateway, finds the
// session as its DISCONNECT left it.
func (c *connection) awaitsLocked() bool {
	return c.ending && !c.told && !c.answered && c.link != nil && c.goodbye.ByClient && (&link.Close{Cause: c.goodbye.Cause}).Answered()
}

// reportedLocked notes that the broker is told of the close now.
func (c *connection) reportedLocked() {
	c.reported = true
	if c.awaitsLocked() {
		c.lingerUntil = time.Now().Add(answerTime).UnixMilli()
		c.gw.registry.wheel.look(&c.timed, c.lingerUntil)
	}
}

// answeredLocked goes on with a close that awaits the broker.
func (c *connection) answeredLocked() {
	if c.awaitsLocked() {
		c.answered = true
		c.markLocked()
	}
}

// bare reports whether what is written goes to an event loop's socket as it is.
func (c *connection) bare() bool { return c.source != nil && c.in.Conn == net.Conn(c.in.Socket) }

// writeLocked hands what is in the output buffer to the socket, and then payload,
// which must be nil unless c is bare.
func (c *connection) writeLocked(payload []byte) {
	c.gw.metrics.bytesOut.Add(float64(len(c.out.b) + len(payload)))
	if r := c.rates.Load(); r != nil {
		c.chargeOutLocked(r, len(c.out.b)+len(payload))
	}
	if c.state != nil {
		c.gw.count(c.state, quota.DeliveryRate, c.delivered)
		c.gw.count(c.state, quota.BytesOutRate, len(c.out.b)+len(payload))
	}
	c.delivered = 0
	var err error
	if payload == nil {
		_, err = c.in.Write(c.out.b)
	} else {
		err = c.in.Socket.WriteTwo(c.out.b, payload)
	}
	if err != nil {
		// Who reads finds out and ends.
		c.in.Socket.Abort()
	}
	c.out.b = c.out.b[:0]
}

// slowLocked notes whether something waits for the socket.
func (c *connection) slowLocked(slow bool) {
	switch {
	case slow && !c.slow:
		c.gw.metrics.slow.Inc()
	case !slow && c.slow:
		c.gw.metrics.slow.Dec()
	}
	c.slow = slow
}

// lingerLocked gives the client time to hang up, if it was told something.
func (c *connection) lingerLocked() {
	if c.source == nil {
		_ = c.in.Socket.SetReadDeadline(time.Now().Add(lingerTime))
		return
	}
	c.lingerUntil = 0
	if !c.goodbye.ByClient {
		c.lingerUntil = time.Now().Add(lingerTime).UnixMilli()
		c.gw.registry.wheel.look(&c.timed, c.lingerUntil)
	}
	c.source.Wake()
}
