// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"runtime"
	"time"

	"github.com/manormq/manor/infra/loop"
)

// entrance lets clients in that come straight to a loop. A loop reads what they say
// and waits for nothing; to check passwords and to find tenants may take long, so that
// until CONNACK each has its packets handled on a goroutine, for as long as that takes.
// Some of these goroutines are kept: their stacks have grown already.
type entrance struct {
	next chan *connection // without a buffer: to one that waits
	idle chan struct{}    // has a token for each that may wait
	done chan struct{}    // closed when none may wait any longer
}

// idleEntrances is how many goroutines wait for clients, for each processor.
const idleEntrances = 16

func newEntrance() entrance {
	return entrance{
		next: make(chan *connection),
		idle: make(chan struct{}, idleEntrances*runtime.GOMAXPROCS(0)),
		done: make(chan struct{}),
	}
}

// closeAfter has nobody wait after ctx is done.
func (e *entrance) closeAfter(ctx context.Context) {
	<-ctx.Done()
	close(e.done)
}

// enter handles what c has said, on another goroutine. c.entering is set.
func (e *entrance) enter(c *connection) {
	select {
	case e.next <- c:
	default:
		go e.run(c)
	}
}

func (e *entrance) run(c *connection) {
	for {
		c.enters()
		select {
		case e.idle <- struct{}{}:
		default:
			return // enough wait
		}
		select {
		case c = <-e.next:
			<-e.idle
		case <-e.done:
			return
		}
	}
}

// arrive gives c to a loop before it has said anything, and reports whether that has
// it.
func (c *connection) arrive() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending {
		return false
	}
	source, err := c.in.Socket.Move(c.gw.loops.pick(), c, "")
	if err != nil {
		return false
	}
	c.source = source
	return true
}

// hear reads, on its loop, what a client says that had no CONNACK when that was last
// looked at. It reports whether that is all: else c is like any other.
func (c *connection) hear(l *loop.Loop) (done bool) {
	c.mu.Lock() // which arrive may still hold
	source := c.source
	switch {
	case c.entering: // who handles what it has said looks again
		c.rested = true
		source.Rest()
		c.mu.Unlock()
		return true
	case c.opened, c.ending:
		c.stranger = false
		c.mu.Unlock()
		source.Belong(c.tenant)
		return false
	case c.waitsLocked():
		c.paused = true
		c.mu.Unlock()
		return false
	case c.opening != nil: // CONNACK wakes it
		c.rested, c.paused = true, true
		source.Rest()
		c.mu.Unlock()
		return true
	}
	c.mu.Unlock()
	b, had := c.front(l.Buffer())
	n, err := c.in.ReadNow(b[had:])
	switch {
	case err != nil:
		c.finish()
	case n > 0:
		c.lastRead.Store(time.Now().UnixMilli())
		c.gw.metrics.bytesIn.Add(float64(n))
		c.keep(b[:had+n])
		c.mu.Lock()
		c.entering = true
		c.mu.Unlock()
		c.gw.entrance.enter(c)
	}
	return true
}

// enters handles what a client has said before CONNACK, and leaves it to the loop again.
func (c *connection) enters() {
	used, _ := c.consume(c.rest.b)
	c.keep(c.rest.b[used:])
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entering = false
	switch {
	case c.ending:
		c.source.Wake()
	case c.waitsLocked():
		c.paused = true
		c.source.WantEnd()
	case c.opening != nil: // CONNACK wakes it, if there is something to do
		c.paused = c.rested || c.rest != nil
	case c.paused:
		c.source.WantRead(false)
	case c.rested || c.opened && c.rest != nil:
		c.source.Wake()
	}
}
