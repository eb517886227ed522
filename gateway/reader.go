// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/manormq/manor/gateway/conn"
	"github.com/manormq/manor/gateway/uplink"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/tenancy/events"
)

const (
	// idleBuffer is what a connection reads into while little comes; busy ones
	// borrow a buffer of busyBuffer.
	idleBuffer = 512
	busyBuffer = 32 << 10
)

// turn is what one read needs to be handled.
type turn struct {
	decoder packet.Decoder
	packet  packet.Packet
	fx      conn.Effects
	packets [16]int
	// slot ends the turn of a CONNECT; nil without one.
	slot func()
	// tenant and username that a CONNECT claims. stranger: there is no such tenant.
	tenant, username string
	stranger         bool
}

// reading is the buffer of a reading goroutine.
type reading struct {
	idle [idleBuffer]byte
	busy *[busyBuffer]byte
	b    []byte // the buffer in use: idle, busy or one for a single large packet
	n    int    // bytes of a packet that has not come whole, at the front of b
}

// read reads and handles until the connection ends, or an event loop has taken
// it. Its frame is small, as listener.Listener.serve says.
func (c *connection) read() (moved bool) {
	r := &reading{}
	r.b = r.idle[:]
	defer r.release(&c.gw.busy)
	for {
		n, err := c.in.Read(r.b[r.n:])
		goesOn, moved := c.took(r, n)
		if moved {
			return true
		}
		if !goesOn || err != nil {
			break
		}
		if c.move(r.b[:r.n]) {
			return true
		}
	}
	// The client was told goodbye, and the socket has a deadline: bytes that
	// are not read would turn the end into a reset that overtakes it.
	for c.lingers() {
		if _, err := c.in.Read(r.b); err != nil {
			break
		}
	}
	return false
}

// took handles n bytes that were read, and reports whether to go on, or that a loop
// has the connection now.
func (c *connection) took(r *reading, n int) (goesOn, moved bool) {
	if n == 0 {
		return !c.isEnding(), false
	}
	c.lastRead.Store(time.Now().UnixMilli())
	c.gw.metrics.bytesIn.Add(float64(n))
	full := r.n+n == len(r.b)
	r.n += n
	for {
		used, paused := c.consume(r.b[:r.n])
		r.n = copy(r.b, r.b[used:r.n])
		if !paused {
			break
		}
		if c.awaits.Load() && c.move(r.b[:r.n]) {
			return true, true
		}
		<-c.wake
		if c.isEnding() {
			return false, false
		}
	}
	r.fit(&c.gw.busy, n, full)
	return !c.isEnding(), false
}

// lingers reports whether the client is to hang up first: it was told something,
// or its WebSocket has a closing handshake.
func (c *connection) lingers() bool {
	cfg := c.in.Listener.Config()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ending && (!c.goodbye.ByClient || cfg.WebSocket())
}

func (c *connection) isEnding() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ending
}

// fit chooses the buffer for the next read. The last one brought n bytes; full
// says that it filled its buffer.
func (r *reading) fit(pool *sync.Pool, n int, full bool) {
	switch {
	case r.n == 0 && n <= idleBuffer && !full && len(r.b) > idleBuffer:
		r.release(pool)
	case r.n == len(r.b):
		// A packet larger than the buffer: grow as it comes, so that a header
		// alone costs nothing.
		if r.busy == nil {
			r.borrow(pool)
			return
		}
		b := make([]byte, 2*len(r.b))
		copy(b, r.b[:r.n])
		r.b = b
	case full && r.busy == nil:
		r.borrow(pool)
	case r.n == 0 && len(r.b) > busyBuffer:
		r.release(pool)
	}
}

func (r *reading) borrow(pool *sync.Pool) {
	r.busy, _ = pool.Get().(*[busyBuffer]byte)
	copy(r.busy[:], r.b[:r.n])
	r.b = r.busy[:]
}

func (r *reading) release(pool *sync.Pool) {
	if r.busy != nil {
		pool.Put(r.busy)
		r.busy = nil
	}
	r.b = r.idle[:]
}

// consume handles the whole packets at the front of b and returns their length.
// paused says that it has stopped before one that may not be handled yet: the
// rest is to be given to it again when c is woken.
func (c *connection) consume(b []byte) (used int, paused bool) {
	for {
		if c.pause(b[used:]) {
			return used, true
		}
		n, goesOn := c.turn(b[used:])
		used += n
		if !goesOn || c.isEnding() {
			return used, false
		}
	}
}

// turn handles whole packets at the front of b and brings about their effects.
// goesOn is set when it has stopped before a packet that may not be handled
// yet, or because that is enough at once.
func (c *connection) turn(b []byte) (used int, goesOn bool) {
	t, _ := c.gw.turns.Get().(*turn)
	rates, slow := c.limits()
	limited := rates != nil || slow != nil
	var allowed allowance
	messages, bytes := 0, 0 // that count in the limits
	if limited {
		allowed = c.allowance(rates, slow, time.Now())
	}
	defer func() {
		if limited {
			charge(rates, slow, messages, bytes)
		}
		c.received(t, used)
		c.metered(t, used, rates != nil, messages, bytes)
		c.send(t)
		c.gw.turns.Put(t)
	}()
	if grant := c.m.Grant(); grant != nil && grant.Asks() {
		t.fx.Now = time.Now().UnixMilli()
	}
	for used < len(b) {
		rest := b[used:]
		if c.version() == 0 {
			n, ok := c.connect(t, rest)
			used += n
			if waits := c.awaits.Load(); !ok || n == 0 || waits || c.asks() {
				return used, waits
			}
			continue
		}
		if sp := c.special.Load(); sp != nil && sp.enhanced != nil {
			n, ok := c.authenticate(t, rest)
			used += n
			if waits := c.awaits.Load(); !ok || n == 0 || waits || c.asks() {
				return used, waits
			}
			continue
		}
		next := packet.Type(rest[0] >> 4)
		if t.fx.Full() || !c.m.MayRead(next) {
			return used, true
		}
		why := conn.NotDropped
		if limited {
			var may bool
			if may, why = allowed.packet(rest[0], c.version(), messages, bytes); !may {
				c.overRate = true
				return used, true
			}
		}
		t.fx.Channel = c.channel
		n, err := t.decoder.Decode(rest, c.version(), c.m.PacketMax(next), &t.packet)
		if err != nil {
			var e *packet.Error
			errors.As(err, &e)
			t.packets[0]++
			if !c.m.Malformed(&t.packet, e, &t.fx) {
				return used, false
			}
		} else if n > 0 {
			t.packets[t.packet.Type]++
			if why != conn.NotDropped {
				c.m.Shed(&t.packet.Publish, why, &t.fx)
			} else {
				c.m.Handle(&t.packet, &t.fx)
				if t.fx.Asking.Came() {
					t.packets[t.packet.Type]--
					c.check(t.fx.Asking)
					return used, true
				}
				bytes += n
				if next == packet.PUBLISH {
					messages++
				}
			}
		}
		used += n
		if t.fx.Auth.Came {
			c.again(t.fx.Auth)
			t.fx.Auth = conn.Auth{}
		}
		if n == 0 || t.fx.Close.Ended {
			return used, false
		}
	}
	return used, false
}

// send brings about the effects gathered in t, and empties it.
func (c *connection) send(t *turn) {
	c.countTurn(t)
	sends, l := c.apply(&t.fx)
	if sends {
		if err := l.Send(&t.fx.Up); err != nil {
			c.gw.log.Debug("send to the broker", "error", err)
		}
		c.sent()
	}
	if cl := &t.fx.Close; cl.Ended && !cl.ByClient {
		c.gw.log.Info("client disconnected", "tenant", c.tenant, "client_id", short(c.clientID), "reason", cl.Reason.String(), "why", cl.Text)
	}
	t.fx.Reset()
	t.decoder.Reset()
	c.mu.Lock()
	alone, dirty := c.source == nil || c.entering, c.dirty
	c.mu.Unlock()
	if !alone {
		return // a loop flushes once for all
	}
	if sends {
		l.FlushUp()
	}
	if dirty {
		c.gw.flush()
	}
}

// apply appends what the client is answered at once, and reports whether there
// are frames for the broker behind l, after which sent must be called.
func (c *connection) apply(fx *conn.Effects) (send bool, l *uplink.Link[connection]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.turning = false
	if c.ending {
		return false, nil
	}
	if c.mayPauseLocked() || c.mayAskLocked() {
		c.markLocked()
	}
	c.borrowOut()
	before := len(c.out.b)
	c.out.b = c.m.Apply(c.out.b, fx)
	c.appendedLocked(len(c.out.b)-before, true)
	switch {
	case fx.Close.Ended:
		c.endLocked(fx.Close)
		if !c.reported {
			fx.Up.Frames = append(fx.Up.Frames, closeFrame(c.channel, fx.Close))
			c.reportedLocked()
		}
	case len(c.out.b) == 0:
		c.releaseOut()
	default:
		c.markLocked()
	}
	if len(fx.Up.Frames) == 0 {
		return false, nil
	}
	c.sending++
	return true, c.link
}

// sent is called after a Send. Somebody else may have ended the connection
// meanwhile, and left it to the sender to have that reported, so that nothing
// follows the report.
func (c *connection) sent() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sending--
	if c.ending && !c.reported || c.mayPauseLocked() || c.mayAskLocked() {
		c.markLocked()
	}
}

func (c *connection) countTurn(t *turn) {
	m := c.gw.metrics
	for i, n := range t.packets {
		if n > 0 {
			m.packets[i].Add(float64(n))
			t.packets[i] = 0
		}
	}
	published, subscribed := c.decided(&t.fx)
	c.countRefused(&t.fx, subscribed)
	for why, n := range t.fx.Drops {
		if n == 0 {
			continue
		}
		m.drops[why].Add(float64(n))
		if c.state != nil {
			c.state.drops[why].Add(uint64(n))
		}
		e := events.Event{Kind: events.Dropped, Reason: conn.Drop(why).String(), Count: n}
		if conn.Drop(why) == conn.DropDenied {
			e.Why = published
		}
		c.tell(c.tenant, e)
		if !c.warned {
			c.warned = true
			c.gw.log.Warn("publish not passed on; further ones of this connection are only counted",
				"tenant", c.tenant, "client_id", c.clientID, "reason", conn.Drop(why).String())
		}
	}
}

// refusalEvery is how often the log has a line about refused subscriptions of
// one connection.
const refusalEvery = time.Minute

// countRefused counts subscriptions that were refused; decision names one, or is empty.
func (c *connection) countRefused(fx *conn.Effects, decision string) {
	first := &fx.FirstRefused
	if first.By == conn.NotRefused {
		return
	}
	for by, n := range fx.Refused {
		if n > 0 {
			c.gw.metrics.subscriptions[by].Add(float64(n))
		}
	}
	total := 0
	for _, n := range fx.Refused {
		total += n
	}
	why := first.Text
	if first.By == conn.RefusedGrants && decision != "" {
		why += " (" + decision + ")"
	}
	c.tell(c.tenant, events.Event{Kind: events.Denied, Reason: first.By.String(), Why: why, Topic: short(first.Filter), Count: total})
	now := time.Now().UnixMilli()
	if c.refusedLogged != 0 && now-c.refusedLogged < refusalEvery.Milliseconds() {
		return
	}
	c.refusedLogged = now
	c.gw.log.Warn("subscription refused; further ones of this connection are only counted for a minute",
		"tenant", c.tenant, "client_id", c.clientID, "reason", first.By.String(), "filter", short(first.Filter), "why", first.Text)
}

// short cuts what a client sent to a length for the log.
func short(s string) string {
	const most = 128
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

func closeFrame(ch link.Channel, cl conn.Close) link.UpFrame {
	if cl.Cause == 0 {
		cl.Cause = link.CloseLost
	}
	return link.UpFrame{Kind: link.UpClose, Channel: ch, Close: &link.Close{
		Cause: cl.Cause, SessionExpiry: cl.SessionExpiry, HasSessionExpiry: cl.HasSessionExpiry,
	}}
}
