// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"fmt"
	"time"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/retain"
	"github.com/manormq/manor/services/broker/session"
)

// A tenant that is purged is forgotten in portions, each a turn of a shard, until a question
// finds nothing. Each goes through the logs of the partitions as any other change does, so that
// followers forget it too, and is answered when it is committed.

// forgetMost is how many sessions, and as many retained messages, a shard forgets in one turn;
// forgetQueued is after how many messages that wait for the sessions it leaves the rest to another
// turn: each of them is a record.
const (
	forgetMost   = 1000
	forgetQueued = 20_000
)

// forgetHere answers a link.QueryForget for what is served here.
func (st *Set) forgetHere(t *Tenant, a *link.Answer) {
	if t.moves() {
		a.Error = "the tenant is on its way to other partitions; ask again when it is there"
		return
	}
	if a.Error = st.unserved(); a.Error != "" {
		return
	}
	type result struct {
		link.Answer
		lost bool
	}
	for _, s := range st.shards {
		done := make(chan result, 1)
		s.call(func() {
			var r link.Answer
			s.forgetTenant(t, &r, func(ok bool) { done <- result{r, !ok} })
		})
		timer := time.NewTimer(askTime)
		select {
		case r := <-done:
			timer.Stop()
			merge(a, &r.Answer, nil)
			if r.lost {
				a.Error = "a partition got another broker meanwhile; ask again"
			}
		case <-timer.C:
			a.Error = "what is forgotten is not committed within " + askTime.String()
		}
	}
	a.Found = a.Found || t.flying.Load() > 0 || t.handedOff.Load() > 0
}

// unserved says which partitions of the region are nobody's, or are this broker's and not served
// yet: what they have is not forgotten. It is empty if there is none.
func (st *Set) unserved() string {
	if st.cluster == nil {
		return ""
	}
	n, first := 0, partition.ID(0)
	for p := range partition.ID(len(st.serving)) {
		if owner, _ := st.cluster.Owner(p); owner == "" || owner == st.cluster.Self() && !st.Serves(p) {
			if n++; n == 1 {
				first = p
			}
		}
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%d partitions, %d among them, have no broker that serves them now: what they have of the tenant is not forgotten", n, first)
}

// forgetTenant forgets the first sessions and retained messages of a tenant in this shard, and
// calls done, in a later turn perhaps, when that is committed, or is not because a partition was
// lost.
func (s *Shard) forgetTenant(t *Tenant, a *link.Answer, done func(committed bool)) {
	wrote := map[*ledger]bool{}
	s.forgetSessions(t, a, wrote)
	for _, p := range s.spaces {
		s.forgetIn(t, p, a, wrote)
	}
	left, lost := len(wrote), false
	if left == 0 {
		done(true)
		return
	}
	said := func(ok bool) {
		lost = lost || !ok
		if left--; left == 0 {
			done(!lost)
		}
	}
	for l := range wrote {
		s.wait(l, waiter{after: func() { said(true) }, lost: func() { said(false) }})
	}
}

// forgetSessions ends the first sessions of a tenant, and the connections that they have. Their
// wills go out, to nobody but the tenant itself.
func (s *Shard) forgetSessions(t *Tenant, a *link.Answer, wrote map[*ledger]bool) {
	var some []*sess
	for _, head := range s.sessions[t] {
		if a.Found = true; len(some) >= forgetMost {
			break
		}
		if head.space.ceding == nil { // else its next owner is asked
			some = append(some, head.all()...)
		}
	}
	s.orderSessions(some)
	for _, se := range some {
		if se.gone {
			continue
		}
		if a.Usage.QueueMessages >= forgetQueued {
			break
		}
		if se.queue != nil {
			a.Usage.QueueMessages += se.queue.Len()
		}
		a.Usage.PersistentSessions++
		if se.awaited != nil {
			s.unresumed(se)
		}
		if ch := se.ch; ch != nil {
			s.tell(ch, link.DownFrame{Kind: link.DownClose, Reason: mqtt.AdministrativeAction, Text: "the tenant is not there any more"})
		}
		if !se.gone {
			s.step(se, &session.Event{Kind: session.Discard}, nil)
		}
		wrote[se.space.ledger] = true
	}
}

// forgetIn forgets the first retained messages of a tenant in a partition, and then what the
// partition knows of where the tenant lives.
func (s *Shard) forgetIn(t *Tenant, p *space, a *link.Answer, wrote map[*ledger]bool) {
	if p.retain.Len(t.id) > 0 {
		a.Found = true
	}
	if p.ceding != nil || a.Usage.Retained >= forgetMost {
		return
	}
	var names []string
	p.retain.Each(t.id, func(r *retain.Retained) {
		if int64(len(names))+a.Usage.Retained < forgetMost {
			names = append(names, string(r.Message.Topic))
		}
	})
	for _, name := range names {
		s.forgetRetained(t, p, name)
		a.Usage.Retained++
		wrote[p.ledger] = true
	}
	if p.cells[t] == 0 || a.Found {
		return
	}
	a.Found = true
	delete(p.cells, t)
	s.forgetCourse(t, p)
	s.batch(p).Delete(partition.KeyNamed(nil, p.id, partition.KindCell, t.id, ""))
	wrote[p.ledger] = true
}
