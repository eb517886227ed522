// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/manormq/manor/infra/loop"
)

// loops are the event loops of a gateway, which have the connections with MQTT on the
// socket, and those with TLS from CONNACK on, or while they wait for a broker. Before
// that, and where there is PROXY or WebSocket, a connection has a goroutine.
type loops struct {
	all  []*loop.Loop
	next atomic.Uint32
	// again is for what is left of a flush.
	again atomic.Uint32
	// busy counts the loops that are in a batch, at whose end they flush.
	busy atomic.Int32
}

// newLoops makes a loop for each processor; none where the system has none.
func (g *Gateway) newLoops() error {
	n := g.cfg.Loops
	if n == 0 {
		n = runtime.GOMAXPROCS(0)
	}
	for range n {
		var l *loop.Loop
		l, err := loop.New(func() { g.loops.busy.Add(1) }, func() (more bool) {
			g.loops.busy.Add(-1)
			g.brokers.FlushUp()
			if l.Pending() {
				g.flushEarly()
				return false
			}
			return g.flushSome()
		})
		if errors.Is(err, loop.ErrUnsupported) {
			return nil
		}
		if err != nil {
			return err
		}
		g.loops.all = append(g.loops.all, l)
	}
	return nil
}

// pick takes the loops in turn.
func (l *loops) pick() *loop.Loop { return l.all[l.next.Add(1)%uint32(len(l.all))] }

// loopCalls adds up a counter of all loops.
func (g *Gateway) loopCalls(of func(*loop.Calls) *atomic.Uint64) func() float64 {
	return func() (n float64) {
		for _, l := range g.loops.all {
			n += float64(of(l.Calls()).Load())
		}
		return n
	}
}

// rest is what is kept of a packet that has not come whole.
type rest struct{ b []byte }

// restMax is the largest rest whose memory is used again.
const restMax = 4 << 10

// move gives c to a loop, with what was read and not handled, and reports
// whether it has.
func (c *connection) move(left []byte) bool {
	g := c.gw
	if len(g.loops.all) == 0 || !c.in.Movable() {
		return false
	}
	l := g.loops.pick()
	c.mu.Lock()
	defer c.mu.Unlock()
	waits := c.waitsLocked()
	if c.ending || !c.opened && !waits {
		return false
	}
	c.keep(left)
	source, err := c.in.Socket.Move(l, c, c.tenant)
	if err != nil {
		c.keep(nil)
		return false
	}
	c.source = source
	switch {
	case waits:
		c.paused = true
		source.WantEnd()
	case c.in.Layered() || len(left) > 0:
		source.Wake() // for what TLS holds, or was not handled
	}
	return true
}

// Readable implements loop.Handler.
func (c *connection) Readable(l *loop.Loop) {
	if c.stranger && c.hear(l) {
		return
	}
	if c.awaits.Load() {
		c.hungUp()
		return
	}
	// TLS gives a record at a time, and the loop does not see what is left. It is
	// others' turn after a buffer all the same.
	for read := 0; read < len(l.Buffer()); {
		b, had := c.front(l.Buffer())
		n, err := c.in.ReadNow(b[had:])
		read += n
		paused := false
		if n > 0 && !c.isEnding() {
			c.lastRead.Store(time.Now().UnixMilli())
			c.gw.metrics.bytesIn.Add(float64(n))
			paused = c.handle(b[:had+n], had > 0)
		}
		if err != nil {
			c.finish()
			return
		}
		if n == 0 || paused || !c.in.Layered() {
			return
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.source.Wake()
}

// Writable implements loop.Handler.
func (c *connection) Writable(*loop.Loop) { c.in.Socket.Drain() }

// Woken implements loop.Handler: c is paused no longer, or ends, or was heard while it
// was let in.
func (c *connection) Woken(l *loop.Loop) {
	c.mu.Lock()
	if c.entering {
		c.mu.Unlock()
		return // who handles what it has said wakes it again
	}
	source, ending, paused := c.source, c.ending, c.paused
	over := ending && c.told && time.Now().UnixMilli() >= c.lingerUntil
	entered := c.stranger && (c.opened || ending)
	c.rested = c.rested && paused
	if c.stranger && !entered && !paused && c.rest != nil && c.waitsLocked() {
		// What it has said behind its CONNECT waits for CONNACK, and nothing that the
		// kernel has would tell of it.
		c.paused, paused = true, true
		source.WantEnd()
	}
	c.mu.Unlock()
	if entered {
		c.stranger = false
		source.Belong(c.tenant)
	}
	switch {
	case over:
		c.finish()
	case ending:
		source.WantRead(true) // until the client has hung up
		c.Readable(l)
	case c.stranger:
		if !paused {
			source.WantRead(true)
		}
	case !paused:
		source.WantRead(true)
		var b []byte
		if c.rest != nil {
			b = c.rest.b
		}
		if !c.handle(b, true) && c.in.Layered() {
			c.Readable(l)
		}
	}
}

// handle handles what was read and keeps the rest. again says that part of it
// was read before. It reports whether c is paused.
func (c *connection) handle(b []byte, again bool) (paused bool) {
	used, paused := c.consume(b)
	if paused {
		c.mu.Lock()
		source := c.source
		if c.paused { // else it was woken already, and Woken comes
			source.WantRead(false)
		}
		c.mu.Unlock()
	}
	if again || used < len(b) {
		c.keep(b[used:])
	}
	return paused
}

// front returns memory to read into, and how much of it is taken at its front by
// what was read before.
func (c *connection) front(buffer []byte) (b []byte, had int) {
	if c.rest == nil {
		return buffer, 0
	}
	had = len(c.rest.b)
	if had <= len(buffer)/2 {
		copy(buffer, c.rest.b)
		return buffer, had
	}
	// A packet larger than that: its memory grows as it comes, so that a header
	// alone costs nothing.
	if cap(c.rest.b)-had < len(buffer)/2 {
		grown := make([]byte, had, 2*cap(c.rest.b)+len(buffer))
		copy(grown, c.rest.b)
		c.rest.b = grown
	}
	return c.rest.b[:min(cap(c.rest.b), had+len(buffer))], had
}

// keep keeps left, which may be a part of rest.
func (c *connection) keep(left []byte) {
	if len(left) == 0 {
		if c.rest != nil && cap(c.rest.b) <= restMax {
			c.gw.rests.Put(c.rest)
		}
		c.rest = nil
		return
	}
	if c.rest == nil {
		c.rest, _ = c.gw.rests.Get().(*rest)
	}
	if cap(c.rest.b) >= len(left) {
		c.rest.b = c.rest.b[:len(left)]
	} else {
		c.rest.b = make([]byte, len(left))
	}
	copy(c.rest.b, left)
}

// runLoops runs the loops until ctx is done.
func (g *Gateway) runLoops(ctx context.Context) {
	for _, l := range g.loops.all {
		g.loopsDone.Go(func() {
			if err := l.Run(ctx); err != nil {
				g.log.Error("an event loop has ended", "error", err)
			}
		})
	}
}
