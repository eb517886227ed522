// SPDX-License-Identifier: Apache-2.0

package api

import (
	"net/http"
	"sync"

	"github.com/manormq/manor/infra/errs"
)

// Bounds on streams of events: each is a reader at the NATS servers.
const (
	followedAtOnce   = 64 // by a process
	followedOfTenant = 8
	// followedAgain is after how many seconds a stream that was refused may be had.
	followedAgain = 10
)

// followed counts streams of events. It is safe for concurrent use.
type followed struct {
	mu  sync.Mutex
	all int            // guarded by mu
	of  map[string]int // guarded by mu; by tenant
}

func newFollowed() *followed { return &followed{of: map[string]int{}} }

// begin counts a stream more of a tenant, until end is called, once.
func (f *followed) begin(tenant string) (end func(), err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.of[tenant] >= followedOfTenant:
		p := problemOf(errs.Coded(errs.Unavailable, "streams_of_tenant", "events of the tenant %q are followed %d times; end one of the streams first", tenant, followedOfTenant))
		p.Status, p.Title, p.RetryAfter = http.StatusTooManyRequests, http.StatusText(http.StatusTooManyRequests), followedAgain
		return nil, p
	case f.all >= followedAtOnce:
		p := problemOf(errs.Coded(errs.Unavailable, "streams_busy", "this process sends %d streams of events; try again later", followedAtOnce))
		p.RetryAfter = followedAgain
		return nil, p
	}
	f.all++
	f.of[tenant]++
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.all--
		if f.of[tenant]--; f.of[tenant] == 0 {
			delete(f.of, tenant)
		}
	}, nil
}
