// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"time"
)

// Session is a client of a tenant: its session and its connection.
type Session struct {
	ClientID       string         `json:"client_id"`
	Connected      bool           `json:"connected"`
	Username       string         `json:"username,omitempty"`
	Protocol       string         `json:"protocol,omitempty"` // 3.1, 3.1.1 or 5
	Peer           string         `json:"peer,omitempty"`
	Listener       string         `json:"listener,omitempty"`
	Gateway        string         `json:"gateway,omitempty"`
	ConnectedAt    *time.Time     `json:"connected_at"` // nil is never
	DisconnectedAt *time.Time     `json:"disconnected_at"`
	SessionExpiry  uint32         `json:"session_expiry"` // seconds; 4294967295 is for ever
	QueueMessages  int64          `json:"queue_messages"`
	QueueBytes     int64          `json:"queue_bytes"`
	Inflight       int            `json:"inflight"`
	Dropped        uint64         `json:"dropped"`
	Subscriptions  []Subscription `json:"subscriptions,omitempty"` // not in lists
}

// Subscription is a subscription of a client.
type Subscription struct {
	Filter            string `json:"filter"`
	QoS               int    `json:"qos"`
	NoLocal           bool   `json:"no_local"`
	RetainAsPublished bool   `json:"retain_as_published"`
	RetainHandling    int    `json:"retain_handling"`
	SubscriptionID    uint32 `json:"subscription_id,omitempty"`
}

// Queue is what waits for a client.
type Queue struct {
	Messages int64           `json:"messages"`
	Bytes    int64           `json:"bytes"`
	Inflight int             `json:"inflight"`
	Items    []QueuedMessage `json:"items"` // those that are sent next, in that order
}

// QueuedMessage is a message that waits.
type QueuedMessage struct {
	Topic     string     `json:"topic"`
	QoS       int        `json:"qos"`
	Retain    bool       `json:"retain"`
	Size      int        `json:"size"` // of the payload, in bytes
	ExpiresAt *time.Time `json:"expires_at"`
	SharedBy  string     `json:"shared_by,omitempty"`
	// The payloads are there if they were asked for; Payload if it is UTF-8, besides.
	Payload       *string `json:"payload,omitempty"`
	PayloadBase64 *string `json:"payload_base64,omitempty"`
}

// TopicMatch is a page of who gets what is published to a topic.
type TopicMatch struct {
	Items        []MatchedClient `json:"items"`
	Next         *string         `json:"next"`
	SharedGroups []SharedGroup   `json:"shared_groups"` // of this page
	// Retained is nil if there is none, and after the first page.
	Retained *RetainedOfATopic `json:"retained,omitempty"`
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
	Filter    string `json:"filter"`
	Members   int    `json:"members"`
	Connected int    `json:"connected"`
}

// RetainedOfATopic is a retained message without its payload.
type RetainedOfATopic struct {
	QoS       int        `json:"qos"`
	Size      int        `json:"size"` // of the payload, in bytes
	StoredAt  *time.Time `json:"stored_at"`
	ExpiresIn *uint32    `json:"expires_in"` // seconds; nil if it does not expire
}

// Sessions lists the clients of a tenant in order of their client ids.
func (c *Client) Sessions(ctx context.Context, tenant string, o ...Option) (*Page[Session], error) {
	return ask[Page[Session]](ctx, c, "list-clients", []string{"tenant", tenant}, nil, o)
}

// Session gets a client with its subscriptions.
func (c *Client) Session(ctx context.Context, tenant, clientID string) (*Session, error) {
	return ask[Session](ctx, c, "get-client", []string{"tenant", tenant, "client_id", clientID}, nil, nil)
}

// Disconnect ends the connection of a client, and with purge forgets its session, too.
func (c *Client) Disconnect(ctx context.Context, tenant, clientID string, purge bool, o ...Option) error {
	if purge {
		o = append(o, Query("session", "purge"))
	}
	return c.call(ctx, "delete-client", []string{"tenant", tenant, "client_id", clientID}, nil, nil, o)
}

// Subscriptions lists the subscriptions of a client in order of their filters.
func (c *Client) Subscriptions(ctx context.Context, tenant, clientID string, o ...Option) (*Page[Subscription], error) {
	return ask[Page[Subscription]](ctx, c, "list-client-subscriptions", []string{"tenant", tenant, "client_id", clientID}, nil, o)
}

// Queue looks at what waits for a client; Query names "limit" (up to 100) and "payloads"
// ("true", with the permission messages:read).
func (c *Client) Queue(ctx context.Context, tenant, clientID string, o ...Option) (*Queue, error) {
	return ask[Queue](ctx, c, "get-client-queue", []string{"tenant", tenant, "client_id", clientID}, nil, o)
}

// MatchTopic lists who gets what is published to a topic.
func (c *Client) MatchTopic(ctx context.Context, tenant, topic string, o ...Option) (*TopicMatch, error) {
	return ask[TopicMatch](ctx, c, "match-topic", []string{"tenant", tenant}, nil, append([]Option{Query("topic", topic)}, o...))
}
