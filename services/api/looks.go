// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/topic"
	"github.com/manormq/manor/services/api/dataplane"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/policy"
)

// SubscriptionList is a page of a client's subscriptions.
type SubscriptionList struct {
	Items []Subscription `json:"items"`
	Next  *string        `json:"next" doc:"The cursor of the next page; null at the end."`
}

// ClientQueue is what waits for a client.
type ClientQueue struct {
	Messages int64           `json:"messages" doc:"How many wait, also those that have expired and were not removed yet."`
	Bytes    int64           `json:"bytes" doc:"What they count against queue_bytes."`
	Inflight int             `json:"inflight" doc:"Messages sent and not acknowledged; they are not among those that wait."`
	Items    []QueuedMessage `json:"items" doc:"Those that are sent next, in that order: the oldest first, unless the setting queue_type is lifo."`
}

// QueuedMessage is a message that waits for a client.
type QueuedMessage struct {
	Topic         string     `json:"topic"`
	QoS           int        `json:"qos"`
	Retain        bool       `json:"retain"`
	Size          int        `json:"size" doc:"Of the payload, in bytes."`
	ExpiresAt     *time.Time `json:"expires_at" doc:"null if it does not expire."`
	SharedBy      string     `json:"shared_by,omitempty" doc:"The shared subscription by which it came, $share/NAME/FILTER."`
	Payload       *string    `json:"payload,omitempty" doc:"If payloads were asked for, and it is UTF-8."`
	PayloadBase64 *string    `json:"payload_base64,omitempty" doc:"If payloads were asked for."`
}

// TopicMatch is a page of who gets what is published to a topic.
type TopicMatch struct {
	Items        []MatchedClient   `json:"items" doc:"The clients with subscriptions that match, in order of their client ids."`
	Next         *string           `json:"next" doc:"The cursor of the next page; null at the end."`
	SharedGroups []SharedGroup     `json:"shared_groups" doc:"The shared subscriptions among those of this page: one member of each gets a message."`
	Retained     *RetainedOfATopic `json:"retained,omitempty" doc:"The retained message of the topic; left out if there is none, and after the first page."`
}

// MatchedClient is a client with those of its subscriptions that match.
type MatchedClient struct {
	ClientID      string         `json:"client_id"`
	Connected     bool           `json:"connected"`
	Subscriptions []Subscription `json:"subscriptions"`
}

// SharedGroup is a shared subscription.
type SharedGroup struct {
	Name      string `json:"name"`
	Filter    string `json:"filter" doc:"Without $share/NAME/."`
	Members   int    `json:"members" doc:"On this page."`
	Connected int    `json:"connected" doc:"Members on this page that have a connection."`
}

// RetainedOfATopic is a retained message without its payload.
type RetainedOfATopic struct {
	QoS       int        `json:"qos"`
	Size      int        `json:"size" doc:"Of the payload, in bytes."`
	StoredAt  *time.Time `json:"stored_at"`
	ExpiresIn *uint32    `json:"expires_in" doc:"Seconds; null if it does not expire."`
}

type (
	subscriptionsInput struct {
		InTenant
		Paged
		ClientID string `path:"client_id" doc:"The client id, percent-encoded."`
	}
	subscriptionsOutput struct{ Body SubscriptionList }
	queueInput          struct {
		InTenant
		ClientID string `path:"client_id" doc:"The client id, percent-encoded."`
		Limit    int    `query:"limit" default:"20" minimum:"0" maximum:"100" doc:"The most messages to show; fewer are where they are large together."`
		Payloads bool   `query:"payloads" doc:"Show payloads, too. It needs the permission messages:read besides."`
	}
	queueOutput struct{ Body ClientQueue }
	matchInput  struct {
		InTenant
		Paged
		Topic string `query:"topic" required:"true" doc:"A topic name, without wildcards." example:"home/lamp"`
	}
	matchOutput struct{ Body TopicMatch }
)

// lookRoutes are questions about what sessions hold.
func (s *Server) lookRoutes() {
	const base = "/v1/tenants/{tenant}"
	register(s, operation("list-client-subscriptions", http.MethodGet, base+"/clients/{client_id}/subscriptions", "Clients",
		"List the subscriptions of a client in order of their filters"), s.listSubscriptions)
	register(s, operation("get-client-queue", http.MethodGet, base+"/clients/{client_id}/queue", "Clients",
		"Look at what waits for a client; nothing is taken"), s.clientQueue)
	register(s, operation("match-topic", http.MethodGet, base+"/topics:match", "Messages",
		"List who gets what is published to a topic, and whether it has a retained message"), s.matchTopic)
}

func (s *Server) listSubscriptions(ctx context.Context, in *subscriptionsInput) (*subscriptionsOutput, error) {
	after, err := readCursor(in.Cursor)
	if err != nil {
		return nil, err
	}
	a, err := s.client(ctx, in.ClientID, link.Query{Kind: link.QueryClient})
	if err != nil {
		return nil, err
	}
	out := &subscriptionsOutput{Body: SubscriptionList{Items: []Subscription{}}}
	if len(a.Clients) == 0 {
		return out, nil
	}
	all := subscriptionBodies(a.Clients[0].Subscriptions)
	slices.SortFunc(all, func(x, y Subscription) int { return strings.Compare(x.Filter, y.Filter) })
	from := 0
	if after != "" {
		from, _ = slices.BinarySearchFunc(all, after+"\x00", func(x Subscription, filter string) int { return strings.Compare(x.Filter, filter) })
	}
	page := all[from:]
	if len(page) > in.Limit {
		page = page[:in.Limit]
		out.Body.Next = writeCursor(page[in.Limit-1].Filter)
	}
	out.Body.Items = append(out.Body.Items, page...)
	return out, nil
}

func subscriptionBodies(all []mqtt.Subscription) []Subscription {
	out := []Subscription{}
	for _, sub := range all {
		out = append(out, Subscription{
			Filter: sub.Filter, QoS: int(sub.QoS), NoLocal: sub.NoLocal, RetainAsPublished: sub.RetainAsPublished,
			RetainHandling: int(sub.RetainHandling), SubscriptionID: sub.ID,
		})
	}
	return out
}

// mayAlso returns an error unless the caller has a permission beside that of the operation,
// about the tenant of the path.
func (s *Server) mayAlso(ctx context.Context, permission string) error {
	t := tenantOf(ctx)
	d, err := s.cfg.RBAC.Allow(ctx, callerOf(ctx).principal, permission, policy.Resource{Organization: t.Organization, Tenant: t.ID})
	if err == nil && d != policy.Allowed {
		err = forbidden(permission)
	}
	return err
}

func (s *Server) clientQueue(ctx context.Context, in *queueInput) (*queueOutput, error) {
	if in.Payloads {
		if err := s.mayAlso(ctx, tenancy.MayReadMessages); err != nil {
			return nil, err
		}
	}
	a, err := s.client(ctx, in.ClientID, link.Query{Kind: link.QueryQueue, Limit: in.Limit, Purge: in.Payloads})
	if err != nil {
		return nil, err
	}
	var st link.QueueState
	if err := json.Unmarshal([]byte(a.Next), &st); err != nil {
		return nil, errs.New(errs.Internal, "the broker says of the queue what is not understood: %w", err)
	}
	out := &queueOutput{Body: ClientQueue{Messages: st.Messages, Bytes: st.Bytes, Inflight: st.Inflight, Items: []QueuedMessage{}}}
	for i := range st.First {
		out.Body.Items = append(out.Body.Items, queuedBody(&st.First[i], in.Payloads))
	}
	return out, nil
}

func queuedBody(m *link.QueuedMessage, payloads bool) QueuedMessage {
	out := QueuedMessage{Topic: m.Topic, QoS: int(m.QoS), Retain: m.Retain, Size: m.Size, ExpiresAt: unixMilli(m.ExpireAt), SharedBy: m.Group}
	if payloads {
		coded := base64.StdEncoding.EncodeToString(m.Payload)
		out.PayloadBase64 = &coded
		if utf8.Valid(m.Payload) {
			text := string(m.Payload)
			out.Payload = &text
		}
	}
	return out
}

func (s *Server) matchTopic(ctx context.Context, in *matchInput) (*matchOutput, error) {
	after, err := readCursor(in.Cursor)
	if err != nil {
		return nil, err
	}
	if err := topic.ValidateName([]byte(in.Topic)); err != nil {
		return nil, errs.Coded(errs.Invalid, "topic_invalid", "topic: %w", err)
	}
	t := tenantOf(ctx).ID
	a, err := s.cfg.Data.Query(ctx, link.Query{Kind: link.QueryMatch, Tenant: t, Filter: in.Topic, Cursor: after, Limit: in.Limit})
	if err != nil {
		return nil, err
	}
	out := &matchOutput{Body: TopicMatch{Items: []MatchedClient{}, SharedGroups: []SharedGroup{}, Next: writeCursor(a.Next)}}
	for i := range a.Clients {
		if c := &a.Clients[i]; !dataplane.Own(c) {
			subs := subscriptionBodies(c.Subscriptions)
			out.Body.Items = append(out.Body.Items, MatchedClient{ClientID: c.ClientID, Connected: c.Connected, Subscriptions: subs})
			out.Body.SharedGroups = addGroups(out.Body.SharedGroups, subs, c.Connected)
		}
	}
	slices.SortFunc(out.Body.SharedGroups, func(x, y SharedGroup) int {
		return strings.Compare(x.Name+"\x00"+x.Filter, y.Name+"\x00"+y.Filter)
	})
	if after != "" {
		return out, nil
	}
	out.Body.Retained, err = s.retainedOf(ctx, t, in.Topic)
	return out, err
}

// addGroups counts the client of those subscriptions among the members of its groups.
func addGroups(groups []SharedGroup, subs []Subscription, connected bool) []SharedGroup {
	for _, sub := range subs {
		name, filter, shared := topic.CutShare(sub.Filter)
		if !shared {
			continue
		}
		i := slices.IndexFunc(groups, func(g SharedGroup) bool { return g.Name == name && g.Filter == filter })
		if i < 0 {
			i = len(groups)
			groups = append(groups, SharedGroup{Name: name, Filter: filter})
		}
		groups[i].Members++
		if connected {
			groups[i].Connected++
		}
	}
	return groups
}

// retainedOf describes the retained message of a topic; nil if there is none.
func (s *Server) retainedOf(ctx context.Context, tenant, name string) (*RetainedOfATopic, error) {
	a, err := s.cfg.Data.Query(ctx, link.Query{Kind: link.QueryRetained, Tenant: tenant, Filter: name, Limit: 1})
	if err != nil || len(a.Retained) == 0 {
		return nil, err
	}
	r := &a.Retained[0]
	out := &RetainedOfATopic{QoS: int(r.Message.QoS), Size: len(r.Message.Payload), StoredAt: unixMilli(r.StoredAt)}
	if r.Message.HasExpiry {
		out.ExpiresIn = &r.Message.Expiry
	}
	return out, nil
}
