// SPDX-License-Identifier: Apache-2.0

package domains

import (
	"context"
	"sync"
	"time"
)

// turns are so many at a time, and one of each tenant. They are safe for concurrent use.
type turns struct {
	all chan struct{}

	mu     sync.Mutex
	single map[string]*single // guarded by mu; of tenants that have a turn or wait
}

// single is the one turn of a tenant.
type single struct {
	turn  chan struct{}
	users int // guarded by turns.mu
}

func newTurns(most int) *turns {
	return &turns{all: make(chan struct{}, most), single: map[string]*single{}}
}

// take waits for a turn, no longer than wait; leave ends it.
func (t *turns) take(ctx context.Context, tenant string, wait time.Duration) (leave func(), ok bool) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	t.mu.Lock()
	s := t.single[tenant]
	if s == nil {
		s = &single{turn: make(chan struct{}, 1)}
		t.single[tenant] = s
	}
	s.users++
	t.mu.Unlock()
	done := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if s.users--; s.users == 0 {
			delete(t.single, tenant)
		}
	}
	// The tenant's own first: who waits for it keeps nobody else from a turn.
	for _, c := range []chan struct{}{s.turn, t.all} {
		select {
		case c <- struct{}{}:
			continue
		case <-ctx.Done():
		}
		if c == t.all {
			<-s.turn
		}
		done()
		return nil, false
	}
	return func() {
		<-t.all
		<-s.turn
		done()
	}, true
}
