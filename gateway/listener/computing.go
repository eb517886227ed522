// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/pires/go-proxyproto"

	"github.com/manormq/manor/infra/fair"
	"github.com/manormq/manor/infra/loop"
)

// Computing bounds how many TLS handshakes are computed at once. One takes most of
// a millisecond of a processor between the client's hello and what is answered;
// when thousands of clients come back at a time, all that are not having their
// turn would wait for a processor together with everything else. The tenants whose
// handshakes wait have turns one after the other. Its methods may be called
// concurrently.
type Computing struct {
	mu    sync.Mutex
	free  int                               // guarded by mu
	queue fair.Queue[*handshake]            // guarded by mu
	flows map[string]*fair.Flow[*handshake] // guarded by mu; of tenants that wait
}

// handshake waits for its turn.
type handshake struct {
	begins chan struct{} // closed when it has its turn
	gone   bool          // guarded by Computing.mu; it waits no more
}

// NewComputing is a bound of n, above 0.
func NewComputing(n int) *Computing {
	return &Computing{free: n, queue: fair.Queue[*handshake]{Quantum: 1}, flows: map[string]*fair.Flow[*handshake]{}}
}

// computeDelay is the longest that a handshake waits for its turn.
const computeDelay = 8 * time.Second

// The ways in which a handshake has no turn.
var (
	errComputing = errors.New("listener: too many TLS handshakes wait for a processor")
	errHungUp    = errors.New("listener: the client hung up while its TLS handshake waited for a processor")
)

// begin waits for the turn of a tenant's handshake on nc, no longer than most. The
// turn ends when something is about to be written, which is the answer to the
// client's hello; or when ctx, that of the handshake, is done. A client that is
// asked for another key share (RFC 8446, section 4.1.4) has had its turn by then.
// A nil Computing has no bound.
func (c *Computing) begin(ctx context.Context, nc net.Conn, tenant string, most time.Duration) error {
	if c == nil {
		return nil
	}
	if x, ok := nc.(*proxyproto.Conn); ok {
		nc = x.Raw()
	}
	s, _ := nc.(*loop.Socket)
	c.mu.Lock()
	if c.free > 0 {
		c.free--
		c.mu.Unlock()
	} else if err := c.waitLocked(ctx, tenant, most); err != nil {
		return err
	} else if s != nil && s.HungUp() {
		c.end()
		return errHungUp
	}
	end := sync.OnceFunc(c.end)
	context.AfterFunc(ctx, end)
	if s != nil {
		s.BeforeWrite(end)
	}
	return nil
}

// waitLocked waits for a turn, and lets go of mu.
func (c *Computing) waitLocked(ctx context.Context, tenant string, most time.Duration) error {
	h := &handshake{begins: make(chan struct{})}
	f := c.flows[tenant]
	if f == nil {
		f = &fair.Flow[*handshake]{}
		c.flows[tenant] = f
	}
	c.queue.Push(f, h)
	c.mu.Unlock()
	late := time.NewTimer(min(computeDelay, most))
	defer late.Stop()
	var err error
	select {
	case <-h.begins:
		return nil
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-late.C:
		err = errComputing
	}
	c.mu.Lock()
	h.gone = true
	c.mu.Unlock()
	select {
	case <-h.begins: // just now
		c.end()
	default:
	}
	return err
}

// end gives a turn to the next.
func (c *Computing) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		h, f, ok := c.queue.Next()
		if !ok {
			c.free++
			clear(c.flows) // the queue has none of them
			return
		}
		if !h.gone {
			c.queue.Charge(f, 1)
			close(h.begins)
			return
		}
	}
}
