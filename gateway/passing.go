// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"time"

	"github.com/manormq/manor/gateway/throttle"
)

const (
	// takenPart of what a tenant may be sent is taken from its rates at once for a batch, of
	// which what it does not use is given back: far from a limit one look at the rates is for
	// many messages, near it for one, so that nobody passes what another has taken.
	takenPart = 16
	// takenMost bounds the messages, and takenBytes the bytes, of that.
	takenMost  = 256
	takenBytes = 64 << 10
)

// passing is what who passes messages to clients, of one tenant or several, may pass of the
// tenant's rates out. One goroutine uses it, and calls end when it is done.
type passing struct {
	of              *tenantRates
	now             time.Time // of the last look
	messages, bytes int64     // taken and not used
	// again: of has had a message already; most batches have one.
	again bool
	// turn: it is the turn of those that wait, behind whom others come.
	turn bool
}

// clock is about now.
func (p *passing) clock() time.Time {
	if p.now.IsZero() {
		p.now = time.Now()
	}
	return p.now
}

// take takes a message of that many bytes, if it may pass.
func (p *passing) take(of *tenantRates, size int64) bool {
	if p.of != of {
		p.end()
		p.of, p.again = of, false
	}
	if !p.turn && of.line.waits.Load() > 0 {
		return false
	}
	if p.messages < 1 || p.bytes < 1 {
		if !of.out.Limited() {
			return true
		}
		messages, bytes := p.messages, p.bytes
		spent := func(b throttle.Budget) bool { return messages < 1 && b.Messages < 1 || bytes < 1 && b.Bytes < 1 }
		budget := of.out.Budget(p.clock())
		if spent(budget) {
			p.now = time.Now() // a batch may take long
			if budget = of.out.Budget(p.now); spent(budget) {
				return false
			}
		}
		most, mostBytes := int64(1), size
		if p.again {
			most, mostBytes = takenMost, max(takenBytes, size)
		}
		p.again = true
		if messages < 1 {
			messages = min(max(budget.Messages/takenPart, 1), most)
		}
		if bytes < 1 {
			bytes = min(max(budget.Bytes/takenPart, size), mostBytes)
		}
		of.out.Spend(p.now, int(messages-p.messages), int(bytes-p.bytes))
		p.messages, p.bytes = messages, bytes
	}
	p.messages--
	if p.bytes -= size; p.bytes < 0 {
		of.out.Spend(p.now, 0, int(-p.bytes))
		p.bytes = 0
	}
	return true
}

// end gives back what was not used.
func (p *passing) end() {
	if p.of == nil {
		return
	}
	p.of.out.Give(p.now, int(p.messages), int(p.bytes))
	p.of, p.messages, p.bytes = nil, 0, 0
}

// mayPassLocked takes a message of that many bytes from the rates out of c, if it may pass.
func (c *connection) mayPassLocked(r *rates, p *passing, size int64) bool {
	own := r.out.Limited()
	if own && c.ownLeft == 0 {
		budget := r.out.Budget(p.clock())
		if budget.Spent() {
			return false
		}
		more := min(max(budget.Bytes/takenPart, 1), takenBytes)
		r.out.Spend(p.now, 0, int(more))
		c.ownLeft = more
	}
	if !p.take(r.shared, size) {
		return false
	}
	if own {
		if c.ownLeft -= size; c.ownLeft < 0 {
			r.out.Spend(p.clock(), 0, int(-c.ownLeft)) // a debt, to be seen by the next
			c.ownLeft = 0
		}
	}
	c.prepaid += int(size)
	return true
}

// chargedFrom is from how many bytes on what was written, and not taken before, is charged.
const chargedFrom = 1 << 10

// chargeOutLocked has the rates out charged with bytes that are written: with what was not
// taken for messages before, as of answers. It may be less, by topic aliases.
func (c *connection) chargeOutLocked(r *rates, written int) {
	c.prepaid -= written
	if c.prepaid > -chargedFrom && c.prepaid < chargedFrom {
		return
	}
	now := time.Now()
	for _, t := range []*throttle.Throttle{&r.out, &r.shared.out} {
		t.Spend(now, 0, -c.prepaid)
		t.Give(now, 0, c.prepaid)
	}
	c.prepaid = 0
}
