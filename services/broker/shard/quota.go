// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"slices"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/topic"
	"github.com/manormq/manor/services/broker/session"
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

// storageFull reports whether the tenant may not store size bytes more.
func (s *Shard) storageFull(t *Tenant, size int) bool {
	most := t.quota().StorageBytes
	return most >= 0 && s.everywhere(t, ofStorage, most)+int64(size) > most
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
		room = q.Subscriptions - s.everywhere(t, ofSubscriptions, q.Subscriptions)
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
func (s *Shard) noteRefused(se *sess, ev *session.Event, i int) {
	why := noteSubscriptionsClient
	if ev.Refused != nil && ev.Refused[i] != 0 {
		why = s.refusals[i]
	}
	s.note(se.tenant, se.ClientID, why, 1)
	s.refusedBy(se, ev.Packet, why)
}
