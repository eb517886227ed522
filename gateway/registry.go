// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"sync"
	"sync/atomic"
)

// registry is the set of open connections, and for each tenant those that were
// let in.
type registry struct {
	n      atomic.Int64
	shards [16]struct {
		mu  sync.Mutex
		set map[*connection]struct{}
	}
	next atomic.Uint32

	mu      sync.Mutex
	tenants map[string]map[*connection]struct{}
}

func (r *registry) len() int { return int(r.n.Load()) }

func (r *registry) add(c *connection) {
	c.shard = uint8(r.next.Add(1) % uint32(len(r.shards)))
	s := &r.shards[c.shard]
	s.mu.Lock()
	if s.set == nil {
		s.set = map[*connection]struct{}{}
	}
	s.set[c] = struct{}{}
	s.mu.Unlock()
	r.n.Add(1)
}

func (r *registry) remove(c *connection) {
	s := &r.shards[c.shard]
	s.mu.Lock()
	delete(s.set, c)
	s.mu.Unlock()
	r.n.Add(-1)
}

// all visits every connection without holding a lock while it does; buf is
// memory to use again.
func (r *registry) all(buf []*connection, visit func(c *connection)) []*connection {
	for i := range r.shards {
		s := &r.shards[i]
		buf = buf[:0]
		s.mu.Lock()
		for c := range s.set {
			buf = append(buf, c)
		}
		s.mu.Unlock()
		for _, c := range buf {
			visit(c)
		}
	}
	clear(buf)
	return buf
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

func (r *registry) leave(tenant string, c *connection) {
	r.mu.Lock()
	defer r.mu.Unlock()
	set := r.tenants[tenant]
	delete(set, c)
	if len(set) == 0 {
		delete(r.tenants, tenant)
	}
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
