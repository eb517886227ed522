// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"encoding/json"
	"slices"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/topic"
	"github.com/manormq/manor/services/broker/queue"
	"github.com/manormq/manor/services/broker/route"
)

// What people look at: what waits for a client, and who gets what is published to a topic.
// Nothing changes by it.

// maxQueued is the most messages of a queue that one Answer has.
const maxQueued = 100

// peek says in a what waits for a client, over all of its connections, and which of it is next.
func (s *Shard) peek(se *sess, q *link.Query, a *link.Answer) {
	var st link.QueueState
	left := q.Limit
	if left < 0 || left > maxQueued {
		left = maxQueued
	}
	size := 0
	for _, m := range se.all() {
		st.Inflight += m.Inflight()
		if m.queue == nil {
			continue
		}
		st.Messages += m.queue.Len()
		st.Bytes += m.queue.Bytes()
		err := m.queue.First(left, func(e *queue.Entry) bool {
			if e.ExpireAt != 0 && e.ExpireAt <= s.now {
				return false
			}
			if size > maxAnswer {
				return true
			}
			w := waitingMessage(e, q.Purge)
			size += len(w.Topic) + len(w.Payload) + len(w.Properties)
			st.First = append(st.First, w)
			left--
			return true
		})
		if err != nil {
			a.Error = err.Error()
			return
		}
	}
	b, err := json.Marshal(st)
	if err != nil {
		a.Error = err.Error()
		return
	}
	a.Next = string(b)
}

func waitingMessage(e *queue.Entry, whole bool) link.QueuedMessage {
	w := link.QueuedMessage{
		Topic: string(e.Message.Topic), QoS: uint8(e.QoS), Retain: e.Retain, Size: len(e.Message.Payload), Group: e.Group, ExpireAt: e.ExpireAt,
	}
	if whole {
		w.Payload, w.Properties = e.Message.Payload, e.Message.Properties
	}
	return w
}

// matching adds the first limit+1 clients after cursor that have subscriptions to filters
// which match name, with those subscriptions.
func (s *Shard) matching(t *Tenant, name, cursor string, limit int, a *link.Answer) {
	var ids []string
	add := func(se *sess) {
		if id := string(se.ClientID); id > cursor {
			ids = append(ids, id)
		}
		// What is beyond the page is let go of now and then: one filter may have a million.
		if len(ids) > 8*(limit+1) {
			ids = firstOf(ids, limit+1)
		}
	}
	var entries []*route.Entry[*sess]
	for _, e := range t.routes.AppendMatches(entries, []byte(name)) {
		for _, p := range e.Parts() {
			if p.Far() || s.spaces[p.ID] == nil {
				continue // another shard, or broker, reads that list
			}
			for i := range p.List.Subs {
				add(p.List.Subs[i].Session)
			}
		}
		for _, g := range e.Groups() {
			for id := range s.spaces {
				for _, se := range g.Members(uint16(id)) {
					add(se)
				}
			}
		}
	}
	for _, id := range firstOf(ids, limit+1) {
		se := s.session(t, mqtt.ClientID(id))
		if se == nil {
			continue
		}
		info := se.info()
		for _, m := range se.all() {
			for _, sub := range m.Subscriptions() {
				_, filter, _ := topic.CutShare(sub.Filter)
				if topic.Match(filter, []byte(name)) && !slices.ContainsFunc(info.Subscriptions, func(x mqtt.Subscription) bool { return x.Filter == sub.Filter }) {
					info.Subscriptions = append(info.Subscriptions, sub)
				}
			}
		}
		if len(info.Subscriptions) > 0 {
			a.Clients = append(a.Clients, info)
		}
	}
}

// firstOf are the first n of ids in order, each once.
func firstOf(ids []string, n int) []string {
	slices.Sort(ids)
	ids = slices.Compact(ids)
	return ids[:min(len(ids), n)]
}
