// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"slices"
	"strings"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/topic"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/retain"
	"github.com/manormq/manor/services/broker/session"
)

// maxPage is the most rows that one Answer has.
const maxPage = 1000

// query answers a question of the API. The answer comes from another goroutine.
func (st *Set) query(l *Link, q *link.Query) {
	own := *q
	go func() {
		var a *link.Answer
		if (own.Kind == link.QueryCell || own.Kind == link.QueryForget) && st.askCell != nil {
			a = st.askCell(&own)
		} else {
			a = st.Ask(&own)
		}
		a.ID = own.ID
		if l.closed() {
			return
		}
		l.gw.Receive(&link.Down{Frames: []link.DownFrame{{Kind: link.DownAnswer, Answer: a}}})
		l.gw.Flush()
	}()
}

// AskHere answers q for what is served here, and says what is owned here and not served
// yet. It waits for turns of the shards that
// the answer needs.
func (st *Set) AskHere(q *link.Query) *link.Answer {
	if q.Kind == link.QueryKept {
		return st.answerKeeps()
	}
	t := st.Tenant(q.Tenant)
	limit := q.Limit
	if limit <= 0 || limit > maxPage {
		limit = maxPage
	}
	a := &link.Answer{}
	if st.cluster != nil && (q.Kind == link.QueryClients || q.Kind == link.QueryRetained || q.Kind == link.QueryMatch) {
		a.Error = st.lacking(q, st.cluster.Self())
	}
	switch q.Kind {
	case link.QueryUsage:
		a.Found, a.Usage = true, t.Usage()
		if q.Limit == link.UsageAndSet {
			a.Usage.RetainedSet = t.retaining.set.Load()
		}
	case link.QueryClient, link.QueryKick, link.QueryQueue:
		if q.Kind == link.QueryKick && t.moves() {
			a.Error = "the tenant is on its way to other partitions; ask again when it is there"
			return a
		}
		s := st.shardOf(partition.Choose(t.parts(), string(q.ClientID)))
		s.ask(func() { s.one(t, q, a) })
	case link.QueryClients:
		a.Found = true
		for _, s := range st.shards {
			s.ask(func() { s.clients(t, q.Cursor, limit, a) })
		}
		cutClients(a, limit)
	case link.QueryMatch:
		if err := topic.ValidateName([]byte(q.Filter)); err != nil {
			a.Error = err.Error()
			return a
		}
		a.Found = true
		st.match(t, q, limit, a)
		cutClients(a, limit)
	case link.QueryRetained:
		if err := topic.ValidateFilter(q.Filter); err != nil {
			a.Error = err.Error()
			return a
		}
		a.Found = true
		for _, s := range st.shards {
			s.ask(func() { s.listRetained(t, q.Filter, q.Cursor, limit, a) })
		}
		cutRetained(a, limit)
	case link.QueryForget:
		st.forgetHere(t, a)
	default:
		a.Error = "this broker does not know the question; it may be older than the asker"
	}
	return a
}

// ask runs f in a turn and waits for it.
func (s *Shard) ask(f func()) {
	done := make(chan struct{})
	s.call(func() {
		f()
		close(done)
	})
	<-done
}

func (s *Shard) one(t *Tenant, q *link.Query, a *link.Answer) {
	se := s.session(t, q.ClientID)
	if se == nil {
		return
	}
	a.Found = true
	if q.Kind == link.QueryQueue {
		s.peek(se, q, a)
		return
	}
	info := se.info()
	info.Subscriptions = slices.Clone(se.Subscriptions())
	a.Clients = []link.ClientInfo{info}
	if q.Kind != link.QueryKick {
		return
	}
	for _, m := range se.all() {
		if m.awaited != nil {
			s.unresumed(m)
		}
		if ch := m.ch; ch != nil {
			s.tell(ch, link.DownFrame{Kind: link.DownClose, Reason: mqtt.AdministrativeAction, Text: "disconnected through the API"})
		}
		if q.Purge && !m.gone {
			s.step(m, &session.Event{Kind: session.Discard}, nil)
		}
	}
}

func (se *sess) info() link.ClientInfo {
	i := link.ClientInfo{
		ClientID: string(se.ClientID), Connected: se.ch != nil || se.awaited != nil, Labels: *se.origin,
		ConnectedAt: se.connectedAt, DisconnectedAt: se.disconnectedAt,
		SessionExpiry: se.Expiry(), Inflight: se.Inflight(), Dropped: se.dropped,
	}
	i.Labels.Username, i.Labels.Peer = se.user, se.peer
	if se.queue != nil {
		i.QueueMessages, i.QueueBytes = se.queue.Len(), se.queue.Bytes()
	}
	return i
}

// clients adds the first limit+1 sessions after cursor.
func (s *Shard) clients(t *Tenant, cursor string, limit int, a *link.Answer) {
	var ids []string
	for id := range s.sessions[t] {
		if string(id) > cursor {
			ids = append(ids, string(id))
		}
	}
	slices.Sort(ids)
	for _, id := range ids[:min(len(ids), limit+1)] {
		a.Clients = append(a.Clients, s.session(t, mqtt.ClientID(id)).info())
	}
}

// maxAnswer bounds the retained messages of an Answer, in bytes: the first one
// is in it whatever its size.
const maxAnswer = 4 << 20

// listRetained adds the first limit+1 retained messages after cursor of each
// partition, as far as they can be in the answer.
func (s *Shard) listRetained(t *Tenant, filter, cursor string, limit int, a *link.Answer) {
	for _, id := range t.parts() {
		p := s.spaces[id]
		if p == nil {
			continue
		}
		n, size := 0, 0
		p.retain.Match(t.id, filter, []byte(cursor), func(_ []byte, r *retain.Retained) bool {
			if r.Expired(s.now) {
				return true
			}
			m := r.Message
			if r.ExpireAt != 0 {
				m.HasExpiry, m.Expiry = true, uint32((r.ExpireAt-s.now)/1000)
			}
			a.Retained = append(a.Retained, link.RetainedInfo{Message: m, StoredAt: r.StoredAt})
			n++
			size += m.Size()
			return n <= limit && size <= maxAnswer
		})
	}
}

// cutClients puts what the shards gave in order, and cuts it to limit.
func cutClients(a *link.Answer, limit int) {
	slices.SortFunc(a.Clients, func(x, y link.ClientInfo) int { return strings.Compare(x.ClientID, y.ClientID) })
	if len(a.Clients) > limit {
		a.Clients = a.Clients[:limit]
		a.Next = a.Clients[limit-1].ClientID
	}
}

// cutRetained puts what the partitions gave in the order of topic.Names, and
// cuts it to limit and maxAnswer.
func cutRetained(a *link.Answer, limit int) {
	slices.SortFunc(a.Retained, func(x, y link.RetainedInfo) int {
		return topic.Compare(x.Message.Topic, y.Message.Topic)
	})
	n, size := 0, 0
	for n < len(a.Retained) && n < limit {
		size += a.Retained[n].Message.Size()
		if n > 0 && size > maxAnswer {
			break
		}
		n++
	}
	if n < len(a.Retained) {
		a.Retained = a.Retained[:n]
		a.Next = string(a.Retained[n-1].Message.Topic)
	}
}
