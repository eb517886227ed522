// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/topic"
)

// quota is what bounds all sessions of the tenant together, as the last client said that
// came. Anyone may ask.
func (t *Tenant) quota() *link.TenantLimits {
	if q := t.quotas.Load(); q != nil {
		return q
	}
	return &link.NoTenantLimits
}

// bound takes what a client says of its tenant's limits.
func (t *Tenant) bound(l *link.TenantLimits) {
	if old := t.quotas.Load(); l.Told && (old == nil || *old != *l) {
		now := *l
		t.quotas.Store(&now)
	}
}

// elsewhereFor is for how long, in milliseconds, what another broker has of a tenant is
// taken as it said it: so old may the part of a count be that is not here.
const elsewhereFor = 1000

// asksMost is of how many tenants others are asked in a second: it bounds what that costs
// where there are very many, whose parts elsewhere are older then.
const asksMost = 1000

// elsewhere is what the other brokers of a cluster have of a tenant, as they have said
// last. They are asked while something is to be counted, and each second at most.
type elsewhere struct {
	sessions, subscriptions, retained, retainedBytes, storage atomic.Int64

	askedAt atomic.Int64
	mu      sync.Mutex
	by      map[string]link.Usage // guarded by mu
}

// others returns what other brokers have of a tenant. It does not wait: they are asked
// for what will be right next time.
func (s *Shard) others(t *Tenant) *elsewhere {
	if s.set.cluster == nil {
		return &t.far // nothing
	}
	e := &t.far
	last := e.askedAt.Load()
	if s.now-last < elsewhereFor || !s.set.mayAsk(s.now) || !e.askedAt.CompareAndSwap(last, s.now) {
		return e
	}
	brokers := s.set.cluster.Brokers()
	e.put(func(by map[string]link.Usage) {
		for name := range by {
			if !slices.Contains(brokers, name) {
				delete(by, name) // who owns nothing has nothing
			}
		}
	})
	for _, name := range brokers {
		// One that cannot be asked has what it had.
		_ = s.set.cluster.Ask(name, &link.Query{Kind: link.QueryUsage, Tenant: t.id}, func(a *link.Answer, err error) {
			if err == nil && a.Error == "" {
				e.put(func(by map[string]link.Usage) { by[name] = a.Usage })
			}
		})
	}
	return e
}

// mayAsk counts a question of others(), and reports whether it may be asked.
func (st *Set) mayAsk(now int64) bool {
	if second := now / 1000; st.asks.second.Swap(second) != second {
		st.asks.n.Store(0)
	}
	return st.asks.n.Add(1) <= asksMost
}

// put changes what is known of the brokers, and counts it again.
func (e *elsewhere) put(change func(by map[string]link.Usage)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.by == nil {
		e.by = map[string]link.Usage{}
	}
	change(e.by)
	var u link.Usage
	for _, v := range e.by {
		u.PersistentSessions += v.PersistentSessions
		u.Subscriptions += v.Subscriptions
		u.Retained += v.Retained
		u.RetainedBytes += v.RetainedBytes
		u.QueueBytes += v.QueueBytes
	}
	e.sessions.Store(u.PersistentSessions)
	e.subscriptions.Store(u.Subscriptions)
	e.retained.Store(u.Retained)
	e.retainedBytes.Store(u.RetainedBytes)
	e.storage.Store(u.RetainedBytes + u.QueueBytes)
}

// storageFull reports whether the tenant may not store size bytes more.
func (s *Shard) storageFull(t *Tenant, size int) bool {
	most := t.quota().StorageBytes
	return most >= 0 && t.queueBytes.Load()+t.retainedBytes.Load()+s.others(t).storage.Load()+int64(size) > most
}

// beyond says which of the filters of a SUBSCRIBE the tenant may not have beside what it
// has; nil is none. It takes constant time for each filter. The counts have what other
// shards and brokers are granting at this moment as it comes: they can be exceeded by as
// many filters as are under way there at once.
func (s *Shard) beyond(se *sess, subs []mqtt.Subscription) []mqtt.ReasonCode {
	t := se.tenant
	q := t.quota()
	if q.Subscriptions < 0 && q.SharedGroups < 0 && q.SharedGroupMembers < 0 {
		return nil
	}
	room, groups := int64(1)<<62, q.SharedGroups-t.routes.Groups()
	if q.Subscriptions >= 0 {
		room = q.Subscriptions - t.subscriptions.Load() - s.others(t).subscriptions.Load()
	}
	own := se.limits.Subscriptions - int64(len(se.Subscriptions()))
	s.refusals = append(s.refusals[:0], make([]noteReason, len(subs))...)
	any := false
	for i := range subs {
		filter := subs[i].Filter
		if se.Has(filter) || slices.ContainsFunc(subs[:i], func(o mqtt.Subscription) bool { return o.Filter == filter }) {
			continue
		}
		why := notNoted
		_, rest, shared := topic.CutShare(filter)
		switch {
		case se.limits.Subscriptions >= 0 && own <= 0:
			continue // the session refuses it
		case room <= 0:
			why = noteSubscriptions
		case shared:
			if g := t.routes.Group(filter, rest); g == nil {
				if q.SharedGroups >= 0 && groups <= 0 {
					why = noteGroups
				} else if q.SharedGroupMembers == 0 {
					why = noteMembers
				} else {
					groups--
				}
			} else if q.SharedGroupMembers >= 0 && int64(g.Size()) >= q.SharedGroupMembers {
				why = noteMembers
			}
		}
		if why != notNoted {
			s.refusals[i], any = why, true
			continue
		}
		room--
		own--
	}
	if !any {
		return nil
	}
	refused := make([]mqtt.ReasonCode, len(subs))
	for i, why := range s.refusals {
		if why != notNoted {
			refused[i] = mqtt.QuotaExceeded
		}
	}
	return refused
}

// noteRefused notes why the i-th filter of a SUBSCRIBE was refused.
func (s *Shard) noteRefused(se *sess, refused []mqtt.ReasonCode, i int) {
	why := noteSubscriptionsClient
	if refused != nil && refused[i] != 0 {
		why = s.refusals[i]
	}
	s.note(se.tenant, se.ClientID, why, 1)
}
