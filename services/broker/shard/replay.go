// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"log/slog"
	"slices"
	"time"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/topic"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/retain"
	"github.com/manormq/manor/services/broker/route"
)

const (
	// replayAgain is the pause before a broker that could not be asked for retained
	// messages is asked again, replayTries how often that is done.
	replayAgain = 200 * time.Millisecond
	replayTries = 50
	// replayRounds is how often a replay begins anew because a broker has lost its
	// partitions to others.
	replayRounds = 3
)

// retainedKey is the route of a partition that has retained messages of a tenant. No
// topic matches it, and no subscription has it [MQTT-4.7.3-2].
const retainedKey = "\x00retained"

// tellRetained has the other brokers know whether a partition has retained messages of
// a tenant. A publisher that brings the first one waits until they do.
func (s *Shard) tellRetained(t *Tenant, p *space) {
	if s.set.cluster == nil {
		return
	}
	switch some, told := p.retain.Len(t.id) > 0, t.routes.Has(retainedKey, p.id); {
	case some && !told:
		t.routes.Subscribe(p.id, retainedKey, route.Sub[*sess]{})
		l := &ledger{shard: s, ticket: 1, outside: true}
		s.storedIn(l)
		s.set.cluster.AddRoute(t.id, retainedKey, p.id, p.epoch, func() {
			s.post(item{kind: itemCommitted, ledger: l, ticket: 1}, nil)
		})
	case !some && told:
		t.routes.Unsubscribe(p.id, nil, retainedKey)
		s.set.cluster.RemoveRoute(t.id, retainedKey, p.id, p.epoch)
	}
}

// restoreRetained tells what tellRetained does of a partition that was restored.
func (s *Shard) restoreRetained(p *space) {
	if s.set.cluster != nil {
		p.retain.Tenants(func(tenant string) { s.tellRetained(s.set.Tenant(tenant), p) })
	}
}

// cedeRetained has what tellRetained told stay with the next owner.
func (s *Shard) cedeRetained(p *space) {
	p.retain.Tenants(func(tenant string) {
		if s.set.Tenant(tenant).routes.Cede(p.id, nil, retainedKey) {
			s.set.cluster.Recheck(tenant, retainedKey, p.id)
		}
	})
}

// narrow has a replay ask those only that have retained messages of the tenant, and
// for one topic only who has its partition.
func (s *Shard) narrow(r *replay, t *Tenant) {
	lone := !topic.HasWildcard(r.sub.Filter)
	if lone {
		r.of = partition.Choose(t.parts(), r.sub.Filter)
	}
	for _, part := range t.routes.Parts(retainedKey) {
		owner := ""
		switch {
		case lone && part.ID != r.of:
			continue
		case !part.Far():
			if to := s.set.shardOf(part.ID); !slices.Contains(r.shards, to) {
				r.shards = append(r.shards, to)
			}
			continue
		case lone:
			r.lone = true // whoever owns it when it is asked
		default:
			owner, _ = s.set.cluster.Owner(part.ID)
		}
		if !slices.Contains(r.brokers, owner) && owner != s.set.cluster.Self() {
			r.brokers = append(r.brokers, owner)
		}
	}
}

// askPage asks another broker for the next page of a replay.
func (s *Shard) askPage(se *sess, r *replay) {
	r.busy = true
	to := r.brokers[0]
	if r.lone {
		to, _ = s.set.cluster.Owner(r.of)
	}
	q := &link.Query{Kind: link.QueryRetained, Tenant: se.tenant.id, Filter: r.sub.Filter, Cursor: r.topic, Limit: replayPage}
	last := r.tries >= replayTries-1
	took := func(a *link.Answer, err error) {
		if err == nil && (a.Error == "" || a.Found && last) {
			s.call(func() {
				if a.Error != "" {
					s.set.log.Warn("a subscriber goes without some retained messages",
						slog.String("tenant", se.tenant.id), slog.String("client_id", string(se.ClientID)), slog.String("broker", to), slog.String("error", a.Error))
					s.drop(se, dropUnserved)
				}
				s.tookPage(se, r, a)
			})
			return
		}
		s.after(replayAgain, func() { s.failedPage(se, r, to, err) })
	}
	switch to {
	case "":
		took(&link.Answer{Error: "nobody owns the partition"}, nil)
		return
	case s.set.cluster.Self():
		go func() { took(s.set.AskHere(q), nil) }() // it waits for turns
		return
	}
	if err := s.set.cluster.Ask(to, q, took); err != nil {
		took(nil, err)
	}
}

func (s *Shard) tookPage(se *sess, r *replay, a *link.Answer) {
	r.busy = false
	for i := range a.Retained {
		m := &retain.Retained{Message: a.Retained[i].Message, StoredAt: a.Retained[i].StoredAt}
		if m.Message.HasExpiry {
			m.ExpireAt = s.now + int64(m.Message.Expiry)*1000
			m.Message.HasExpiry = false
		}
		m.Message.Retain = true
		r.page = append(r.page, m)
	}
	r.topic, r.tries = a.Next, 0
	if a.Next == "" {
		r.brokers = r.brokers[1:]
	}
	s.replay(se)
}

// failedPage asks again for a while: the subscriber has its SUBACK, and its retained
// messages follow.
func (s *Shard) failedPage(se *sess, r *replay, from string, err error) {
	r.busy = false
	if r.tries++; r.tries >= replayTries {
		s.set.log.Warn("retained messages of a broker cannot be had; a subscriber goes without them",
			slog.String("tenant", se.tenant.id), slog.String("client_id", string(se.ClientID)), slog.String("broker", from), slog.Any("error", err))
		s.drop(se, dropUnserved)
		r.brokers, r.topic, r.tries = r.brokers[1:], "", 0
	} else if brokers := s.set.cluster.Brokers(); !r.lone && r.rounds < replayRounds && !slices.Contains(brokers, from) {
		// What the broker had is with others by now: they are asked from the beginning,
		// since what comes twice is not lost.
		r.rounds++
		r.shards, r.cursor = slices.Clone(s.set.shards), cursor{}
		r.brokers, r.topic = brokers, ""
	}
	s.replay(se)
}
