// SPDX-License-Identifier: Apache-2.0

package remote

import (
	"context"
	"sync"

	"github.com/manormq/manor/tenancy"
)

// changes hands every change to every Watch.
type changes struct {
	mu     sync.Mutex
	queues map[*queue]struct{} // guarded by mu
}

// tell tells a change. One that takes something away goes before those that do not:
// when the control plane was away there may be many.
func (c *changes) tell(change tenancy.Change, revokes bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for q := range c.queues {
		q.push(change, revokes)
	}
}

func (c *changes) subscribe() *queue {
	q := &queue{wake: make(chan struct{}, 1)}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queues[q] = struct{}{}
	return q
}

func (c *changes) unsubscribe(q *queue) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.queues, q)
}

// queue holds the changes that one Watch has not handed over. One that waits already as
// the last is not added again.
type queue struct {
	mu sync.Mutex
	// revocations go before others; guarded by mu.
	revocations, others []queued
	// gone says of credentials up to which change they are overtaken: what was told of
	// one before it went must not be handed over behind that. Guarded by mu.
	gone   map[credentialName]uint64
	pushed uint64        // guarded by mu; counts changes
	wake   chan struct{} // holds a token while there may be items
}

type queued struct {
	tenancy.Change
	number uint64
}

type credentialName struct{ tenant, username string }

func (q *queue) push(c tenancy.Change, revokes bool) {
	q.mu.Lock()
	lane := &q.others
	if revokes {
		lane = &q.revocations
	}
	if n := len(*lane); n == 0 || (*lane)[n-1].Change != c {
		q.pushed++
		*lane = append(*lane, queued{c, q.pushed})
		if c.Kind == tenancy.CredentialGone && len(q.others) > 0 {
			if q.gone == nil {
				q.gone = map[credentialName]uint64{}
			}
			q.gone[credentialName{c.Tenant, c.Username}] = q.pushed
		}
	}
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take returns the next change, and forgets it.
func (q *queue) take() (c tenancy.Change, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.revocations) > 0 {
		c = q.revocations[0].Change
		q.revocations = q.revocations[1:]
		return c, true
	}
	for len(q.others) > 0 {
		next := q.others[0]
		q.others = q.others[1:]
		if next.Kind == tenancy.CredentialChanged && next.number < q.gone[credentialName{next.Tenant, next.Username}] {
			continue
		}
		return next.Change, true
	}
	q.gone = nil
	return c, false
}

func (q *queue) pop(ctx context.Context) (c tenancy.Change, ok bool) {
	for ctx.Err() == nil {
		if c, ok := q.take(); ok {
			return c, true
		}
		select {
		case <-q.wake:
		case <-ctx.Done():
		}
	}
	return c, false
}
