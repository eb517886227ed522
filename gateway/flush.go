// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"math"
	"time"

	"github.com/manormq/manor/gateway/conn"
	"github.com/manormq/manor/gateway/uplink"
	"github.com/manormq/manor/infra/fair"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
)

// markDirty puts c in the list of what is to be written. The caller holds c.mu.
func (g *Gateway) markDirty(c *connection) {
	flow := &g.dirty.strangers
	g.dirty.mu.Lock()
	if c.state != nil {
		flow = &c.state.flow
	}
	g.dirty.fair.Push(flow, c)
	g.dirty.mu.Unlock()
}

const (
	// patience is for how long those that flush all the time leave what is for the
	// one tenant that has something: it is written in larger pieces then.
	patience = 10 * time.Millisecond
	// flushMost is how many bytes are written at once for several tenants. They are
	// several for flushShared after two had something.
	flushMost   = 128 << 10
	flushShared = time.Second
	// flushQuantum is what a tenant has written in its turn.
	flushQuantum = 64 << 10
	// flushCost is what a write counts for besides its bytes.
	flushCost = 4 << 10
	// flushPiece is how many connections are taken from the list at once.
	flushPiece = 16
	// postEvery is after how many pieces the broker hears what they led to.
	postEvery = 16
)

// flusher is the memory of one flush.
type flusher struct {
	taken [flushPiece]*connection
	flows [flushPiece]*fair.Flow[*connection]
	costs [flushPiece]int64
	n     int // of taken
	ups   []upTo
	// senders are the connections of which frames were gathered that must not be
	// overtaken.
	senders []*connection
}

type upTo struct {
	link *uplink.Link[connection]
	up   link.Up
}

// frames returns the batch for l.
func (fl *flusher) frames(l *uplink.Link[connection]) *link.Up {
	for i := range fl.ups {
		if fl.ups[i].link == l {
			return &fl.ups[i].up
		}
	}
	if len(fl.ups) < cap(fl.ups) {
		fl.ups = fl.ups[:len(fl.ups)+1] // its memory from before
	} else {
		fl.ups = append(fl.ups, upTo{})
	}
	u := &fl.ups[len(fl.ups)-1]
	u.link = l
	return &u.up
}

// flush writes out all that is dirty, or a piece of it if loops write the rest.
// Nobody who calls it holds a connection's mutex.
func (g *Gateway) flush() {
	if g.flushSome() {
		n := g.loops.again.Add(1) % uint32(len(g.loops.all))
		g.loops.all[n].Again()
	}
}

// flushSome writes out all that is dirty, in one go if it is one tenant's: that
// costs less. Where several tenants have had something not long ago it writes a
// piece, since something may come for another that ought not to wait, and reports
// whether there is more. There is none in a gateway without loops.
func (g *Gateway) flushSome() (more bool) {
	now := time.Now().UnixNano()
	if len(g.loops.all) > 0 && now-g.dirty.shared.Load() < int64(flushShared) {
		return g.write(flushMost)
	}
	g.flushed.Store(now)
	g.write(math.MaxInt64)
	return false
}

// flushEarly writes out some of what is dirty, first what is for tenants that rarely
// have something. Who calls it calls it again, or flush, very soon.
func (g *Gateway) flushEarly() {
	g.dirty.mu.Lock()
	flows := g.dirty.fair.Flows()
	g.dirty.mu.Unlock()
	switch {
	case flows > 1:
		g.write(flushMost)
	case flows > 0 && time.Now().UnixNano()-g.flushed.Load() > int64(patience):
		g.flush()
	}
}

// write writes out dirty connections, up to about so many bytes, and reports
// whether there are more. Who marks others meanwhile flushes after that.
func (g *Gateway) write(most int64) (more bool) {
	fl, _ := g.flushers.Get().(*flusher)
	g.dirty.mu.Lock()
	left, several := g.dirty.fair.Len(), g.dirty.fair.Flows() > 1
	g.dirty.mu.Unlock()
	if several {
		g.dirty.shared.Store(time.Now().UnixNano())
	}
	for pieces := 1; left > 0 && most > 0; pieces++ {
		g.take(fl)
		if fl.n == 0 {
			break
		}
		left -= fl.n
		for i, c := range fl.taken[:fl.n] {
			fl.costs[i] = flushCost + int64(c.flush(fl))
			most -= fl.costs[i]
		}
		if pieces%postEvery == 0 {
			fl.post(g)
		}
	}
	g.charge(fl)
	g.give(fl)
	return left > 0
}

// take takes the next connections off the list, after it has charged those of
// before.
func (g *Gateway) take(fl *flusher) {
	g.charge(fl)
	g.dirty.mu.Lock()
	defer g.dirty.mu.Unlock()
	for fl.n = 0; fl.n < flushPiece; fl.n++ {
		c, flow, ok := g.dirty.fair.Next()
		if !ok {
			return
		}
		// Until the true cost is known, so that one tenant does not fill the piece.
		g.dirty.fair.Charge(flow, flushCost)
		fl.taken[fl.n], fl.flows[fl.n] = c, flow
	}
}

// charge has tenants pay for what was written.
func (g *Gateway) charge(fl *flusher) {
	if fl.n == 0 {
		return
	}
	g.dirty.mu.Lock()
	defer g.dirty.mu.Unlock()
	for i := range fl.n {
		g.dirty.fair.Charge(fl.flows[i], fl.costs[i]-flushCost)
		fl.taken[i], fl.flows[i] = nil, nil
	}
	fl.n = 0
}

// flushOne writes out what is there for c.
func (g *Gateway) flushOne(c *connection) {
	fl, _ := g.flushers.Get().(*flusher)
	c.flush(fl)
	g.give(fl)
}

// give sends to the broker what it has to hear, and gives fl back.
func (g *Gateway) give(fl *flusher) {
	fl.post(g)
	g.flushers.Put(fl)
}

// send sends what was gathered for the brokers, with what that leads to, and returns
// the links that are lost.
func (fl *flusher) send(g *Gateway) (lost []*uplink.Link[connection]) {
	for i := range fl.ups {
		u := &fl.ups[i]
		if err := u.link.Send(&u.up); err != nil {
			g.log.Debug("send to the broker", "error", err)
			lost = append(lost, u.link)
		}
		u.link.FlushUp()
		u.up.Reset()
		u.link = nil
	}
	fl.ups = fl.ups[:0]
	fl.gathered()
	return lost
}

// gathered goes on with those of which frames were sent.
func (fl *flusher) gathered() {
	senders := fl.senders
	fl.senders = nil
	for _, c := range senders {
		c.sent()
		c.gw.flushOne(c)
	}
}

// post sends what was gathered for the brokers.
func (fl *flusher) post(g *Gateway) {
	for i := range fl.ups {
		u := &fl.ups[i]
		if err := u.link.Post(&u.up); err != nil {
			g.log.Debug("post to the broker", "error", err)
		}
		u.link.FlushUp()
		u.up.Reset()
		u.link = nil
	}
	fl.ups = fl.ups[:0]
	fl.gathered()
}

// flush writes out what is there, says goodbye when it is time, and gathers
// what the broker must hear. It returns how many bytes it wrote.
func (c *connection) flush(fl *flusher) (n int) {
	n, warn := c.flushQuietly(fl)
	if warn {
		c.gw.log.Warn("a message is larger than the client's maximum packet size; further ones of this connection are only counted",
			"tenant", c.tenant, "client_id", c.clientID)
	}
	return n
}

// flushQuietly is flush, and reports whether to warn of a message that was too
// large.
func (c *connection) flushQuietly(fl *flusher) (n int, warn bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dirty = false
	if c.warnOut == warnDue {
		c.warnOut, warn = warned, true
	}
	last := c.ending && !c.told && !c.awaitsLocked()
	if last {
		c.borrowOut()
		c.out.b = c.m.Goodbye(c.out.b, c.goodbye)
	}
	if c.out != nil && len(c.out.b) > 0 {
		n = len(c.out.b)
		c.writeLocked(nil)
	}
	c.releaseOut()
	backlog := c.in.Socket.Backlog()
	c.slowLocked(backlog > 0 && !c.gone)
	if backlog == 0 {
		c.owed = 0
		if c.stalled {
			c.wakeLocked()
		}
	}
	if last {
		c.told = true
		if !c.goodbye.ByClient || c.source == nil || !c.bare() {
			c.in.Shut()
		} // else its loop closes the socket now, which says the same
		c.lingerLocked()
	}
	if c.link == nil {
		return n, warn
	}
	if !c.ending {
		if c.moving != nil && c.moving.told {
			return n, warn // the new owner hears of it
		}
		if total, ok := c.m.Credit(backlog); ok {
			up := fl.frames(c.link)
			up.Frames = append(up.Frames, link.UpFrame{Kind: link.UpCredit, Channel: c.channel, Bytes: total})
		}
		held := c.holding != nil && c.holdFramesLocked(func() *link.Up { return fl.frames(c.link) })
		if len(c.tooLarge) > 0 || c.changed != nil || held {
			c.sending++
			fl.senders = append(fl.senders, c)
		}
		for _, id := range c.tooLarge {
			up := fl.frames(c.link)
			up.Frames = append(up.Frames, link.UpFrame{Kind: link.UpTooLarge, Channel: c.channel, PacketID: id})
		}
		c.tooLarge = nil
		if c.changed != nil {
			up := fl.frames(c.link)
			up.Frames = append(up.Frames, link.UpFrame{Kind: link.UpLimits, Channel: c.channel, Limits: c.changed})
			c.changed = nil
		}
		if held && c.holding.ends {
			c.endLocked(conn.Close{Ended: true, Cause: link.CloseRevoked, Reason: mqtt.NotAuthorized, Text: "the tenant's policy does not grant any more what the session had subscribed"})
			return n, warn
		}
		if c.mayPauseLocked() {
			c.moving.told = true
			up := fl.frames(c.link)
			up.Frames = append(up.Frames, link.UpFrame{Kind: link.UpPaused, Channel: c.channel})
		}
		return n, warn
	}
	if !c.reported && c.sending == 0 {
		c.reportedLocked()
		up := fl.frames(c.link)
		up.Frames = append(up.Frames, closeFrame(c.channel, c.goodbye))
	}
	return n, warn
}
