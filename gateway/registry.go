// SPDX-License-Identifier: Apache-2.0

package gateway

import "sync"

// registry is the set of open connections, and for each tenant those that were
// let in.
type registry struct {
	wheel wheel

	mu      sync.Mutex
	tenants map[string]map[*connection]struct{}
	// rates are what tenants share; they stay a while without a connection.
	rates map[string]*tenantRates
}

// enter adds c to its tenant unless that has limit connections already; a
// negative limit is none.
func (r *registry) enter(tenant string, limit int64, c *connection) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	set := r.tenants[tenant]
	if limit >= 0 && int64(len(set)) >= limit {
		return false
	}
	if set == nil {
		if r.tenants == nil {
			r.tenants = map[string]map[*connection]struct{}{}
		}
		set = map[*connection]struct{}{}
		r.tenants[tenant] = set
	}
	set[c] = struct{}{}
	return true
}

// leave takes c out of its tenant and reports whether it was the last.
func (r *registry) leave(tenant string, c *connection) (last bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	set := r.tenants[tenant]
	delete(set, c)
	if len(set) == 0 {
		delete(r.tenants, tenant)
	}
	return len(set) == 0
}

// of returns the connections of a tenant.
func (r *registry) of(tenant string) []*connection {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]*connection, 0, len(r.tenants[tenant]))
	for c := range r.tenants[tenant] {
		out = append(out, c)
	}
	return out
}
