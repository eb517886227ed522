// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/manormq/manor/gateway/conn"
	"github.com/manormq/manor/gateway/throttle"
	"github.com/manormq/manor/infra/fair"
)

// registry is the set of open connections, and for each tenant those that were
// let in.
type registry struct {
	wheel wheel

	mu      sync.Mutex
	tenants map[string]*tenantState // stays, as its counters do
	// rates are what tenants share; they stay a while without a connection. unused are those
	// of tenants that may have none.
	rates, unused map[string]*tenantRates
}

// tenantState is what this gateway knows of a tenant that has had a connection.
type tenantState struct {
	tenant      string                   // its id
	connections map[*connection]struct{} // guarded by registry.mu
	// flow are the connections that have something to be written; guarded by
	// Gateway.dirty.mu.
	flow fair.Flow[*connection]
	// slow is the throttle of a tenant that is read more slowly because the node is
	// overloaded; nil for others.
	slow atomic.Pointer[throttle.Throttle]
	// What has come from the tenant's clients, for ever: PUBLISH packets, those of
	// them that were not passed on, bytes of all packets, and CONNECTs that were
	// right but too many.
	publishes, bytes, refused atomic.Uint64
	drops                     [conn.DropOverload + 1]atomic.Uint64
	meters                    meters
	// checkLogged is when the log had the last line about mqtt.check, in Unix milliseconds.
	checkLogged atomic.Int64
	// Of the watch of the load: bytes at the last look, and the rate of slow.
	seen uint64
	rate float64
}

// states calls f for each tenant that has had a connection.
func (r *registry) states(f func(tenant string, s *tenantState)) {
	r.mu.Lock()
	all := maps.Clone(r.tenants)
	r.mu.Unlock()
	for tenant, s := range all {
		f(tenant, s)
	}
}

// state returns what is known of a tenant, made when first asked for.
func (r *registry) state(tenant string) *tenantState {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.tenants[tenant]
	if s == nil {
		s = &tenantState{tenant: tenant, connections: map[*connection]struct{}{}}
		if r.tenants == nil {
			r.tenants = map[string]*tenantState{}
		}
		r.tenants[tenant] = s
	}
	return s
}

// known returns what is known of a tenant; nil is nothing.
func (r *registry) known(tenant string) *tenantState {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tenants[tenant]
}

// enter adds c to its tenant unless that has limit connections already; a
// negative limit is none.
func (r *registry) enter(s *tenantState, limit int64, c *connection) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if limit >= 0 && int64(len(s.connections)) >= limit {
		return false
	}
	s.connections[c] = struct{}{}
	s.meters.open.Store(int64(len(s.connections)))
	return true
}

// leave takes c out of its tenant and reports whether it was the last.
func (r *registry) leave(s *tenantState, c *connection) (last bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(s.connections, c)
	s.meters.open.Store(int64(len(s.connections)))
	if len(s.connections) > 0 {
		return false
	}
	if rates := r.rates[s.tenant]; rates != nil {
		r.unusedLocked(time.Now(), s.tenant, rates)
	}
	return true
}

// of returns the connections of a tenant.
func (r *registry) of(tenant string) []*connection {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.tenants[tenant]
	if s == nil {
		return nil
	}
	out := make([]*connection, 0, len(s.connections))
	for c := range s.connections {
		out = append(out, c)
	}
	return out
}
