// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// line are the clients of a tenant for which messages wait for the tenant's rates out. They
// take turns; who comes meanwhile waits behind them. Its methods may be called concurrently,
// under a connection's mutex too; locks: connection.mu, then line.mu.
type line struct {
	// waits is how many there are, with those whose turn it is.
	waits atomic.Int64

	mu    sync.Mutex
	list  []*connection // guarded by mu
	timer *time.Timer   // guarded by mu; nil before the first wait
}

// join puts c at the end. If it is the only one its turn comes after that time.
func (l *line) join(g *Gateway, of *tenantRates, c *connection, after time.Duration) {
	l.waits.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, c)
	if len(l.list) == 1 { // those whose turn it is may all be served before they look for more
		l.armLocked(g, of, after)
	}
}

func (l *line) armLocked(g *Gateway, of *tenantRates, after time.Duration) {
	if l.timer == nil {
		l.timer = time.AfterFunc(after, func() { g.lineTurn(of) })
	} else {
		l.timer.Reset(after)
	}
}

// kick has those that wait looked at now.
func (l *line) kick() {
	if l.waits.Load() == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer != nil {
		l.timer.Reset(0)
	}
}

// pop takes out the first; nil if there is none.
func (l *line) pop() *connection {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.list) == 0 {
		return nil
	}
	c := l.list[0]
	l.list[0] = nil
	l.list = l.list[1:]
	return c
}

// back puts one that was taken out in again; in front if it had nothing of its turn.
func (l *line) back(c *connection, front bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if front {
		l.list = slices.Insert(l.list, 0, c)
	} else {
		l.list = append(l.list, c)
	}
}

// lineTurn passes what the tenant's rates let pass, to each client that waits about as many
// messages and bytes, and comes again while some wait.
func (g *Gateway) lineTurn(of *tenantRates) {
	l := &of.line
	p := passing{turn: true}
	budget, waits := of.out.Budget(time.Now()), max(l.waits.Load(), 1)
	each, eachBytes := max(budget.Messages/waits, 1), max(budget.Bytes/waits, 1)
	for c := l.pop(); c != nil; c = l.pop() {
		stays, spent := c.lineTurnOf(&p, each, eachBytes)
		if stays {
			l.back(c, spent)
		} else {
			l.waits.Add(-1)
		}
		if spent {
			break
		}
	}
	p.end()
	g.flush()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.list) > 0 {
		wait, _ := of.out.Wait(time.Now())
		l.armLocked(g, of, max(wait, shortestWait))
	}
}

// lineTurnOf passes up to most messages, and none behind mostBytes, of what waits for c. stays: it waits in the line on. spent:
// the tenant may pass no more, and c has passed nothing.
func (c *connection) lineTurnOf(p *passing, most, mostBytes int64) (stays, spent bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.held
	if c.ending || !c.holdsLocked() {
		h.queued = false
		return false, false
	}
	n, full := c.passHeldLocked(p, most, mostBytes)
	switch {
	case c.ending || !c.holdsLocked():
		h.queued = false
		return false, false
	case full:
		return true, false
	}
	r, now := c.rates.Load(), time.Now()
	if own := c.ownWaitLocked(r, now); own > 0 {
		h.queued = false
		c.awaitOwnLocked(now, own)
		return false, false
	}
	return true, n == 0
}
