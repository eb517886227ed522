// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"encoding/json"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/services/broker/queue"
)

// What people look at: what waits for a client, and who gets what is published to a topic
// (matching.go). Nothing changes by it.

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
