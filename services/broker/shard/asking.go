// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/topic"
	"github.com/manormq/manor/services/broker/partition"
)

// askTime is for how long an answer of other brokers is waited for.
const askTime = 5 * time.Second

// askAgain is the pause before an answer that lacks something is asked for again.
const askAgain = 50 * time.Millisecond

// Ask answers q for the whole region: other brokers are asked for what they serve. It
// waits: while partitions change owners for up to askTime. An answer that lacks a broker
// or a partition then says so.
func (st *Set) Ask(q *link.Query) *link.Answer {
	if st.cluster == nil {
		return st.AskHere(q)
	}
	switch q.Kind {
	case link.QueryClient, link.QueryKick, link.QueryQueue:
		owner, _ := st.cluster.Owner(partition.Choose(st.Tenant(q.Tenant).parts(), string(q.ClientID)))
		switch owner {
		case st.cluster.Self():
			return st.AskHere(q)
		case "":
			return &link.Answer{Error: "the partition of this client has no broker now"}
		}
		return st.askAll(q, []string{owner}, &link.Answer{})
	case link.QueryClients, link.QueryRetained, link.QueryMatch:
		return st.askWhole(q)
	case link.QueryCell: // no question of shards
		return st.AskHere(q)
	case link.QueryUsage, link.QueryKept, link.QueryForget:
	}
	return st.askAll(q, st.cluster.Brokers(), st.AskHere(q))
}

func (st *Set) askWhole(q *link.Query) *link.Answer {
	for end := time.Now().Add(askTime); ; time.Sleep(askAgain) {
		missing := st.lacking(q, "")
		a := &link.Answer{Error: missing}
		if missing == "" || time.Now().After(end) {
			a = st.askAll(q, st.cluster.Brokers(), st.AskHere(q))
			if a.Error == "" {
				a.Error = st.lacking(q, "")
			}
		}
		if a.Error == "" || time.Now().After(end) {
			return a
		}
	}
}

// lacking says which of the partitions that q is about have that owner by the table, and
// are not served by this broker; empty if none is. Those without an owner have "".
func (st *Set) lacking(q *link.Query, owner string) string {
	if st.cluster == nil {
		return ""
	}
	parts := st.Tenant(q.Tenant).parts()
	if q.Kind == link.QueryRetained && !topic.HasWildcard(q.Filter) {
		parts = []partition.ID{partition.Choose(parts, q.Filter)}
	}
	n, first := 0, partition.ID(0)
	for _, p := range parts {
		if of, _ := st.cluster.Owner(p); of == owner && !st.Serves(p) {
			if n++; n == 1 {
				first = p
			}
		}
	}
	switch {
	case n == 0:
		return ""
	case owner == "":
		return fmt.Sprintf("%d of %d partitions, %d among them, have no broker now: what they hold is missing", n, len(parts), first)
	}
	return fmt.Sprintf("%d of %d partitions, %d among them, are not served yet by %s, their new broker: what they hold is missing", n, len(parts), first, owner)
}

// askAll adds the answers of brokers to a.
func (st *Set) askAll(q *link.Query, brokers []string, a *link.Answer) *link.Answer {
	type reply struct {
		from   string
		answer *link.Answer
		err    error
	}
	replies := make(chan reply, len(brokers))
	for _, b := range brokers {
		err := st.cluster.Ask(b, q, func(x *link.Answer, err error) { replies <- reply{b, x, err} })
		if err != nil {
			replies <- reply{from: b, err: err}
		}
	}
	compare := strings.Compare
	if q.Kind == link.QueryRetained {
		compare = compareTopics
	}
	timer := time.NewTimer(askTime)
	defer timer.Stop()
	for range brokers {
		select {
		case r := <-replies:
			if r.err != nil {
				a.Error = "broker " + r.from + " does not answer: " + r.err.Error()
				continue
			}
			merge(a, r.answer, compare)
		case <-timer.C:
			a.Error = "a broker does not answer within " + askTime.String()
		}
	}
	limit := q.Limit
	if limit <= 0 || limit > maxPage {
		limit = maxPage
	}
	cut(a, limit)
	return a
}

// merge adds what another broker answered. A page ends where that of one of them does:
// behind that it may have more.
func merge(a, b *link.Answer, compare func(x, y string) int) {
	if b.Error != "" {
		a.Error = b.Error
	}
	a.Found = a.Found || b.Found
	a.Clients = append(a.Clients, b.Clients...)
	a.Retained = append(a.Retained, b.Retained...)
	if b.Next != "" && (a.Next == "" || compare(b.Next, a.Next) < 0) {
		a.Next = b.Next
	}
	u, v := &a.Usage, &b.Usage
	u.Connections += v.Connections
	u.PersistentSessions += v.PersistentSessions
	u.Subscriptions += v.Subscriptions
	u.QueueMessages += v.QueueMessages
	u.QueueBytes += v.QueueBytes
	u.Retained += v.Retained
	u.RetainedBytes += v.RetainedBytes
}

// compareTopics is topic.Compare for names.
func compareTopics(x, y string) int { return topic.Compare([]byte(x), []byte(y)) }

// cut puts what several brokers gave in order, and makes a page of it.
func cut(a *link.Answer, limit int) {
	end := a.Next
	a.Clients = slices.DeleteFunc(a.Clients, func(c link.ClientInfo) bool { return end != "" && c.ClientID > end })
	a.Retained = slices.DeleteFunc(a.Retained, func(r link.RetainedInfo) bool {
		return end != "" && compareTopics(string(r.Message.Topic), end) > 0
	})
	cutClients(a, limit)
	cutRetained(a, limit)
}
