// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/manormq/manor/infra/jointrate"
	"github.com/manormq/manor/infra/link"
)

const (
	// retainBurst is how many seconds' worth of retained messages may be set at once.
	retainBurst = 1
	// retainEvery is how often, in milliseconds, brokers ask each other what they let through,
	// while they do.
	retainEvery = 250
	// retainAlone is after what time, in milliseconds, without answers of other brokers they
	// are taken to set as many as this one.
	retainAlone = 8 * retainEvery
)

// retainRate bounds how many retained messages a tenant sets in a second. The brokers of a
// cluster that serve it keep the rate together: whoever lets some through asks
// the others four times a second how many they did.
type retainRate struct {
	joint jointrate.Rate
	// set is how many were let through since the tenant is known here.
	set atomic.Int64
	// asked is when others were asked last, in Unix milliseconds.
	asked atomic.Int64
	// exchanged is when what others let through was last taken off, in Unix milliseconds,
	// and n is how many brokers there are.
	exchanged, n atomic.Int64
	mu           sync.Mutex
	heard        map[string]int64 // guarded by mu; what others have said of their set
	others       int64            // guarded by mu; what they let through since exchanged
}

// mayRetainNow reports whether the tenant may set one more retained message now, and counts
// it then.
func (s *Shard) mayRetainNow(t *Tenant) bool {
	most := t.quota().RetainedRate
	if most < 0 {
		return true
	}
	r, n := &t.retaining, 1
	if s.set.cluster != nil {
		if last := r.asked.Load(); s.now-last >= retainEvery && s.set.retainAsks.may(s.now) && r.asked.CompareAndSwap(last, s.now) {
			s.set.askRetaining(t, s.now)
		}
		n = int(max(r.n.Load(), 1))
		if last := r.exchanged.Load(); s.now-last >= retainAlone {
			r.alone(last, s.now, n)
		}
	}
	if _, ok := r.joint.Take(time.UnixMilli(s.now), most, retainBurst, n); !ok {
		return false
	}
	r.set.Add(1)
	return true
}

// hear takes what another broker has let through since it knows the tenant. What it says
// first, or after it has begun again, is only where to count from.
func (r *retainRate) hear(name string, set int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.heard == nil {
		r.heard = map[string]int64{}
	}
	if last, ok := r.heard[name]; ok && set > last {
		r.others += set - last
	}
	r.heard[name] = set
}

// exchange takes off what others have said.
func (r *retainRate) exchange(now int64) {
	last := r.exchanged.Swap(now)
	if last >= now {
		return
	}
	r.mu.Lock()
	others := r.others
	r.others = 0
	r.mu.Unlock()
	r.joint.Exchange(time.UnixMilli(now), others, int(max(r.n.Load(), 1)), time.Duration(now-last)*time.Millisecond)
}

// alone is exchange when nothing is known of the others: what they say next is where to
// count from.
func (r *retainRate) alone(last, now int64, n int) {
	if !r.exchanged.CompareAndSwap(last, now) {
		return // another shard does
	}
	r.mu.Lock()
	clear(r.heard)
	r.others = 0
	r.mu.Unlock()
	at, past := time.UnixMilli(now), time.Duration(now-last)*time.Millisecond
	mine := r.joint.Exchange(at, 0, n, past)
	r.joint.Exchange(at, mine*int64(n-1), n, past)
}

// ownersOf is how many brokers serve partitions of the tenant.
func (st *Set) ownersOf(t *Tenant) int {
	var some [8]string
	names := some[:0]
	for _, p := range t.parts() {
		if owner, _ := st.cluster.Owner(p); !slices.Contains(names, owner) {
			names = append(names, owner)
		}
	}
	return max(len(names), 1)
}

// askRetaining asks the other brokers what they let through; the next exchange is when all
// have said it.
func (st *Set) askRetaining(t *Tenant, now int64) {
	r, brokers := &t.retaining, st.cluster.Brokers()
	r.n.Store(int64(st.ownersOf(t)))
	var left atomic.Int64
	left.Store(int64(len(brokers)))
	done := func(name string, a *link.Answer, err error) {
		if err == nil && a.Error == "" {
			r.hear(name, a.Usage.RetainedSet)
		}
		if left.Add(-1) == 0 {
			r.exchange(now)
		}
	}
	for _, name := range brokers {
		err := st.cluster.Ask(name, &link.Query{Kind: link.QueryUsage, Tenant: t.id, Limit: link.UsageAndSet}, func(a *link.Answer, err error) { done(name, a, err) })
		if err != nil {
			done(name, nil, err)
		}
	}
	if len(brokers) == 0 {
		r.exchange(now)
	}
}
