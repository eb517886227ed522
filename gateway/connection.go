// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/manormq/manor/gateway/conn"
	"github.com/manormq/manor/gateway/listener"
	"github.com/manormq/manor/gateway/uplink"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/loop"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/tenancy"
)

// lingerTime is how long a client may take to hang up after it was told
// goodbye.
const lingerTime = 2 * time.Second

// answerTime is for how long the broker's answer to a DISCONNECT is waited for,
// before the client's connection is closed.
const answerTime = time.Second

// warning is whether the log must have, or has, a line.
type warning uint8

const (
	warnNot warning = iota
	warnDue
	warned
)

// connection is the shell of a connection machine. Who reads owns the machine's
// inbound half: its goroutine, its loop, or while entering who lets it in.
type connection struct {
	gw    *Gateway
	in    *listener.Conn
	timed timed

	// Unix milliseconds: when it came, and when the last byte did.
	started  int64
	lastRead atomic.Int64
	// silence is how many milliseconds may pass without a byte; 0 is for ever.
	silence atomic.Int64

	// link and channel are guarded by mu: a client that waits for a broker has none.
	// They do not change while turning or sending are set. The others are set by the reading goroutine before
	// the channel is asked for.
	link     *uplink.Link[connection]
	channel  link.Channel
	tenant   string
	username string
	clientID string
	// special is what few connections have; nil for the others.
	special atomic.Pointer[special]

	// rates are nil for a tenant without any.
	rates atomic.Pointer[rates]
	// throttledBy has a bit for each rateQuota of which it was told that it slows c down.
	throttledBy atomic.Uint32
	// overRate: the last turn has used up a rate; the inbound half's.
	overRate bool
	// awaits: opening waits, or has; written under mu.
	awaits atomic.Bool

	mu sync.Mutex // guards what follows

	// method is by which the client was let in; written before it is known to others.
	method method

	m   conn.Conn // the outbound half
	out *output   // nil while nothing is to be written
	// state is that of the tenant; nil before it is known.
	state *tenantState
	// dirty: in the gateway's list, to be flushed.
	dirty bool
	// opening is from when a broker is to be asked for a channel until it has
	// answered; nil otherwise.
	opening *opening
	// guest: its session is one; see guests.
	guest bool
	// opened: CONNACK with success was appended.
	opened bool
	// moving is set while the client's partition moves to another broker.
	moving *moving
	// turning: the inbound half handles packets, and may have frames to send.
	turning bool
	// slow: something waited for the socket at the last flush. gone: it is closed.
	slow bool
	gone bool
	// stale: the tenant has changed before CONNACK.
	stale bool
	// owed is how many bytes of answers, which need no credit, were appended
	// since the socket had last taken everything.
	owed int
	// holding is what the session may hold and is not granted; nil for most.
	holding *holding
	// changed is what the broker must hear of a change of the tenant.
	changed *link.NewLimits
	// largest is the most that was appended at once, which the socket's backlog
	// may have on top.
	largest int
	// paused: what was read waits until wakeLocked, which closes wake or wakes
	// the source. stalled: because of owed.
	paused  bool
	stalled bool
	wake    chan struct{}
	// source: an event loop has the socket, and owns the inbound half unless entering.
	source *loop.Source
	// entering: a goroutine owns the inbound half, to let the client in. rested: its
	// loop has heard more meanwhile, and looks again when woken.
	entering bool
	rested   bool
	// lingerUntil is when a client that was told goodbye has had its time, on a
	// loop; before that, when the broker's answer to the close is not waited for any
	// more. In Unix milliseconds.
	lingerUntil int64
	// sending is how many goroutines are in Send with frames of c; each looks at
	// ending after it.
	sending int8

	// ending: goodbye says how. told: the client was. reported: the broker was;
	// it forgets a channel only then, even if it has closed it itself.
	ending   bool
	goodbye  conn.Close
	told     bool
	reported bool
	// answered: the broker has heard of the close, or is not waited for any more.
	answered bool

	// rest is what was read of a packet that has not come whole; the inbound half's.
	rest *rest
	// stranger: it came to its loop before CONNACK, and has none as far as the loop has
	// seen; the loop's.
	stranger bool

	// delivered counts the messages that were appended since the last write. prepaid is how
	// many bytes the rates out were charged with beyond what was written; it may be below 0.
	delivered, prepaid int
	// ownLeft is how many bytes were taken from its own rate out and not used.
	ownLeft int64
	// held is nil before a message had to wait for a rate.
	held *held
	// sleeps are its waits for rates; nil before the first.
	sleeps *sleeps

	tooLarge []uint16 // packet ids of which the broker must hear
	// warnings of this connection that the log has: of publishes that were not
	// passed on (the reading goroutine's), of messages too large for the client.
	warned  bool
	warnOut warning
	// refusedLogged is when the log had the last line about a subscription that
	// was refused, in Unix milliseconds; the reading goroutine's.
	refusedLogged int64
	// deniedLogged is that of the last line about what the tenant's policy denied.
	deniedLogged int64
}

// special is what few connections have.
type special struct {
	// arrival is the client as the tenant's policy saw it, or nil. What it points to does
	// not change.
	arrival atomic.Pointer[tenancy.Arrival]
	// limit is what its token limits it to, or nil; it does not change.
	limit *tenancy.Grant
	// session is what the credential says; guarded by mu from CONNACK on.
	session *tenancy.SessionOverride
	// enhanced is the enhanced authentication before CONNACK, nil if there is
	// none; the reading goroutine's.
	enhanced *enhanced
	// checking is what mqtt.check was asked, nil while nothing waits for that; guarded
	// by mu.
	checking *checking
	// prefixed: the user name of the enhanced authentication names the tenant.
	prefixed bool
	// reauth is set while a client authenticates again; guarded by mu.
	reauth *reauth
	// issuer is whose token has let the client in, and expires when that ends, in
	// Unix milliseconds; empty and 0 without one. limitText is what it limits the client
	// to. Set before CONNACK; who authenticates again has another expires.
	issuer, limitText string
	expires           atomic.Int64
}

// makeSpecial returns what is special, made when first needed. The reading
// goroutine calls it before CONNACK, others under mu after it.
func (c *connection) makeSpecial() *special {
	sp := c.special.Load()
	if sp == nil {
		sp = &special{}
		c.special.Store(sp)
	}
	return sp
}

// session is what the credential says, or nil.
func (c *connection) session() *tenancy.SessionOverride {
	if sp := c.special.Load(); sp != nil {
		return sp.session
	}
	return nil
}

// handle is the life of a connection; listeners call it on the goroutine of
// each.
func (g *Gateway) handle(in *listener.Conn) {
	c := g.newConnection(in)
	goesOn := false
	if c.stranger {
		goesOn = c.arrive()
	} else {
		goesOn = c.read()
	}
	if !goesOn {
		c.finish()
	}
}

func (g *Gateway) newConnection(in *listener.Conn) *connection {
	now := time.Now().UnixMilli()
	c := &connection{gw: g, in: in, started: now, stranger: in.Socket.Own()}
	c.lastRead.Store(now)
	cfg := in.Listener.Config()
	g.metrics.accepted.WithLabelValues(cfg.Label()).Inc()
	in.Socket.Async(c.progress, c.overrun)
	c.timed.c = c
	g.registry.wheel.add(&c.timed, now+g.cfg.ConnectTimeout.Milliseconds()+1)
	return c
}

// end begins the end of the connection; the first caller says how. The caller
// flushes afterwards.
func (c *connection) end(cl conn.Close) { c.expel(cl) }

// expel is end, and reports whether the connection was not about to end anyway.
func (c *connection) expel(cl conn.Close) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending {
		return false
	}
	c.endLocked(cl)
	return true
}

// endLocked is end under mu.
func (c *connection) endLocked(cl conn.Close) {
	if c.ending {
		return
	}
	known := c.knownLocked()
	c.ending, c.goodbye = true, cl
	if c.opening != nil {
		c.gw.waiting.forget(c.opening)
		c.opening = nil
		c.awaits.Store(false)
	}
	c.uncheckLocked()
	c.wakeLocked()
	if c.sleeps != nil {
		c.sleeps.out.end()
	}
	c.dropHeldLocked()
	c.markLocked()
	c.count(cl)
	if known {
		c.tellEndLocked(cl)
	}
}

// markLocked puts c in the gateway's list, to be flushed.
func (c *connection) markLocked() {
	if !c.dirty {
		c.dirty = true
		c.gw.markDirty(c)
	}
}

func (c *connection) count(cl conn.Close) {
	m := c.gw.metrics
	switch {
	case c.opened && cl.ByClient && cl.Cause == link.CloseLost:
		m.disconnects.WithLabelValues("client", "connection lost").Inc()
	case c.opened && cl.ByClient:
		m.disconnects.WithLabelValues("client", cl.Reason.String()).Inc()
	case c.opened:
		m.disconnects.WithLabelValues("server", cl.Reason.String()).Inc()
	case cl.Reason != mqtt.Success:
		m.connects.WithLabelValues(c.m.Version().String(), cl.Reason.String()).Inc()
	}
}

func (c *connection) wakeLocked() {
	if !c.paused {
		return
	}
	c.paused = false
	if c.sleeps != nil {
		c.sleeps.in.end()
	}
	if !c.stalled {
		// It was not read; its silence begins now, not when who is woken gets to
		// run.
		c.lastRead.Store(time.Now().UnixMilli())
	}
	c.stalled = false
	if c.source != nil {
		c.source.Wake()
	} else {
		close(c.wake)
	}
}

// wait blocks the reading goroutine until ready is true, which is asked under
// mu after every frame that may change it, or the connection ends. It reports
// whether ready is true.
func (c *connection) wait(ready func() bool) bool {
	waited := false
	for {
		c.mu.Lock()
		if c.ending || ready() {
			ok := !c.ending
			c.mu.Unlock()
			if waited {
				// What was not read was no silence of the client's.
				c.lastRead.Store(time.Now().UnixMilli())
			}
			return ok
		}
		waited = true
		c.paused, c.wake = true, make(chan struct{})
		wake := c.wake
		c.mu.Unlock()
		<-wake
	}
}

// maxOwed bounds the answers that wait for a socket: beyond it a client that
// sends and does not read is not read either.
const maxOwed = 256 << 10

// pause reports whether b, which was read, may not be handled yet: too many
// answers wait for the socket, the broker's window is used up, the partition of the
// client moves, or the client waits for the owner of its partition. Then c is
// paused until somebody calls wakeLocked. The keep alive goes on in the first
// case, so that a client that never reads again is ended by it.
func (c *connection) pause(b []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	paused := c.mustPauseLocked(b)
	c.turning = !paused
	return paused
}

func (c *connection) mustPauseLocked(b []byte) bool {
	if c.ending || !c.opened && !c.waitsLocked() {
		return false
	}
	stalled := c.owed > maxOwed
	checks := c.checksLocked()
	switch {
	case stalled || !c.opened || checks:
	case len(b) == 0:
		return false
	case c.moving != nil:
	case !c.m.MayRead(packet.Type(b[0] >> 4)):
		c.gw.metrics.paused.Inc()
	default:
		if !c.throttledLocked(b[0]) {
			return false
		}
	}
	c.paused, c.stalled = true, stalled
	if c.source == nil {
		c.wake = make(chan struct{})
	}
	return true
}

// progress is called when the socket has taken some of its backlog.
func (c *connection) progress() {
	c.mu.Lock()
	told := c.told
	if !told {
		c.markLocked()
	}
	c.mu.Unlock()
	if !told {
		c.gw.flush()
	}
}

// overrun is called when the socket was closed because its backlog was too
// large, which credit and maxOwed let no client come to. It is under the
// socket's mutex, perhaps under mu too.
func (c *connection) overrun(backlog int) {
	cfg := c.in.Listener.Config()
	c.gw.metrics.overruns.Inc()
	c.gw.log.Warn("connection closed: more waits for its socket than may",
		"listener", cfg.Label(), "peer", c.in.Peer.String(), "bytes", backlog)
}

// appendedLocked notes that n bytes were appended to out at once; owed says
// that they needed no credit.
func (c *connection) appendedLocked(n int, owed bool) {
	if owed {
		c.owed += n
	}
	if n > c.largest {
		c.largest = n
		c.in.Socket.Bound(loop.DefaultBound + n)
	}
}

// finish is the last thing that who reads does.
func (c *connection) finish() {
	c.end(conn.Close{Ended: true, Cause: link.CloseLost, ByClient: true})
	c.gw.flushOne(c)
	_ = c.in.Socket.Close()
	c.mu.Lock()
	c.gone = true
	c.slowLocked(false)
	if c.link != nil {
		c.link.Channels.Remove(c.channel)
	}
	if c.holding != nil {
		c.gw.questions.take(c.holding.id)
	}
	guest := c.guest
	c.mu.Unlock()
	if guest {
		c.gw.guests.remove(c)
	}
	if c.tenant != "" {
		if c.gw.registry.leave(c.state, c) {
			c.gw.rules.forget(c.tenant)
		}
	}
	c.gw.registry.wheel.remove(&c.timed)
}

// version is that of the client in metrics and logs.
func (c *connection) version() packet.Version { return c.m.Version() }
