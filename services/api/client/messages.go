// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"time"
)

// Message is a message to be published: Payload as text, PayloadBase64, or neither for an
// empty one.
type Message struct {
	Topic         string             `json:"topic"`
	Payload       *string            `json:"payload,omitempty"`
	PayloadBase64 *string            `json:"payload_base64,omitempty"`
	QoS           int                `json:"qos,omitempty"`
	Retain        bool               `json:"retain,omitempty"`
	Properties    *MessageProperties `json:"properties,omitempty"`
}

// MessageProperties are the MQTT 5 properties of a message.
type MessageProperties struct {
	PayloadFormatIndicator int            `json:"payload_format_indicator,omitempty"` // 1 is UTF-8
	MessageExpiryInterval  *uint32        `json:"message_expiry_interval,omitempty"`  // seconds
	ContentType            string         `json:"content_type,omitempty"`
	ResponseTopic          string         `json:"response_topic,omitempty"`
	CorrelationData        *string        `json:"correlation_data,omitempty"` // in base64
	UserProperties         []UserProperty `json:"user_properties,omitempty"`
}

// UserProperty is a name and a value; names may repeat.
type UserProperty struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Published says how a message was acknowledged.
type Published struct {
	ReasonCode int    `json:"reason_code"` // 0, or 16 if nobody has subscribed
	Reason     string `json:"reason"`
}

// Retained is a retained message.
type Retained struct {
	Topic         string             `json:"topic"`
	QoS           int                `json:"qos"`
	Payload       *string            `json:"payload,omitempty"` // if it is UTF-8
	PayloadBase64 string             `json:"payload_base64"`
	StoredAt      *time.Time         `json:"stored_at"`
	Properties    *MessageProperties `json:"properties,omitempty"`
}

// UsageMeter is one meter of a tenant.
type UsageMeter struct {
	Meter  string       `json:"meter"`
	Points []UsagePoint `json:"points"` // in order of time
}

// UsagePoint is what a meter showed at a time.
type UsagePoint struct {
	At    time.Time `json:"at"`
	Value int64     `json:"value"`
}

// Publish publishes a message; at QoS 1 and 2 it returns when the message is acknowledged.
func (c *Client) Publish(ctx context.Context, tenant string, in Message, o ...Option) (*Published, error) {
	return ask[Published](ctx, c, "publish", []string{"tenant", tenant}, in, o)
}

// Retained lists retained messages in order of their topics; Query names "filter", "limit"
// and "cursor".
func (c *Client) Retained(ctx context.Context, tenant string, o ...Option) (*Page[Retained], error) {
	return ask[Page[Retained]](ctx, c, "list-retained", []string{"tenant", tenant}, nil, o)
}

// TenantMetrics gets the limits and the usage of a tenant's quotas in the text format of Prometheus.
func (c *Client) TenantMetrics(ctx context.Context, tenant string) ([]byte, error) {
	return c.whole(ctx, "get-tenant-metrics", []string{"tenant", tenant})
}

// Usage says what a tenant uses; Query names "meter", "from", "to" and "step".
func (c *Client) Usage(ctx context.Context, tenant string, o ...Option) (*Page[UsageMeter], error) {
	return ask[Page[UsageMeter]](ctx, c, "get-usage", []string{"tenant", tenant}, nil, o)
}
