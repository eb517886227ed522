// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"context"
	"encoding/base64"
	"net/http"
	"time"
	"unicode/utf8"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/topic"
	"github.com/manormq/manor/services/api/dataplane"
	"github.com/manormq/manor/tenancy"
)

// PublishRequest is the body of POST …/publish.
type PublishRequest struct {
	Topic         string             `json:"topic" example:"home/lamp"`
	Payload       *string            `json:"payload,omitempty" doc:"The payload as text; or payload_base64, or neither for an empty one."`
	PayloadBase64 *string            `json:"payload_base64,omitempty" doc:"The payload in base64."`
	QoS           int                `json:"qos,omitempty" minimum:"0" maximum:"2" doc:"The answer waits for the acknowledgement of QoS 1 and 2."`
	Retain        bool               `json:"retain,omitempty"`
	Properties    *MessageProperties `json:"properties,omitempty"`
}

// MessageProperties are the MQTT 5 properties of a message.
type MessageProperties struct {
	PayloadFormatIndicator int                      `json:"payload_format_indicator,omitempty" minimum:"0" maximum:"1" doc:"1 says that the payload is UTF-8."`
	MessageExpiryInterval  *uint32                  `json:"message_expiry_interval,omitempty" doc:"Seconds."`
	ContentType            string                   `json:"content_type,omitempty"`
	ResponseTopic          string                   `json:"response_topic,omitempty"`
	CorrelationData        *string                  `json:"correlation_data,omitempty" doc:"In base64."`
	UserProperties         []dataplane.UserProperty `json:"user_properties,omitempty" doc:"In order; names may repeat."`
}

// PublishAnswer is the answer to it.
type PublishAnswer struct {
	ReasonCode int    `json:"reason_code" doc:"The MQTT 5 reason code of the acknowledgement: 0, or 16 if nobody has subscribed."`
	Reason     string `json:"reason" example:"success"`
}

// RetainedMessage is a retained message.
type RetainedMessage struct {
	Topic         string             `json:"topic"`
	QoS           int                `json:"qos"`
	Payload       *string            `json:"payload,omitempty" doc:"If it is UTF-8."`
	PayloadBase64 string             `json:"payload_base64"`
	StoredAt      *time.Time         `json:"stored_at"`
	Properties    *MessageProperties `json:"properties,omitempty"`
}

// RetainedList is a page of retained messages.
type RetainedList struct {
	Items []RetainedMessage `json:"items"`
	Next  *string           `json:"next" doc:"The cursor of the next page; null at the end."`
}

type (
	publishInput struct {
		InTenant
		Post
		Body PublishRequest
	}
	publishOutput     struct{ Body PublishAnswer }
	listRetainedInput struct {
		InTenant
		Paged
		Filter string `query:"filter" default:"#" doc:"A topic filter."`
	}
	listRetainedOutput struct{ Body RetainedList }
)

func (s *Server) messageRoutes() {
	const base = "/v1/tenants/{tenant}"
	op := operation("publish", http.MethodPost, base+"/publish", "Messages", "Publish a message")
	op.DefaultStatus = http.StatusOK
	op.MaxBodyBytes = publishBodyMax
	register(s, op, s.publish)
	register(s, operation("list-retained", http.MethodGet, base+"/retained", "Messages", "List retained messages in order of their topics"), s.listRetained)
}

func (s *Server) publish(ctx context.Context, in *publishInput) (*publishOutput, error) {
	r := tenantOf(ctx)
	t, err := r.Tenant(s.cfg.Domain)
	if err != nil {
		return nil, err
	}
	if err := t.Inactive(); err != nil {
		return nil, err
	}
	m, err := message(&in.Body)
	if err != nil {
		return nil, err
	}
	if err := mayPublish(t, &m); err != nil {
		return nil, err
	}
	if in.DryRun {
		return &publishOutput{Body: PublishAnswer{Reason: mqtt.Success.String()}}, nil
	}
	if m.QoS == mqtt.AtMostOnce && s.refusal(ctx, t, &m) != nil {
		// At QoS 0 nobody would hear of it. The broker decides: a replacement,
		// or what is expired by now, may make room.
		m.QoS = mqtt.AtLeastOnce
	}
	ack, err := s.cfg.Data.Publish(ctx, t, m)
	switch code := ack.Reason; {
	case err != nil:
		return nil, err
	case code == mqtt.QuotaExceeded:
		return nil, s.exceeded(ctx, t, &m, ack.Quota)
	case code.Failed():
		return nil, errs.Coded(errs.Denied, "publish_refused", "the broker refuses the message: %s", code)
	}
	return &publishOutput{Body: PublishAnswer{ReasonCode: int(ack.Reason), Reason: ack.Reason.String()}}, nil
}

// exceeded is the error of a message that a broker has refused by the quota that it names;
// a broker that is older than that names none.
func (s *Server) exceeded(ctx context.Context, t *tenancy.Tenant, m *mqtt.Message, quota string) error {
	l := &t.Limits
	if quota == dataplane.QuotaRetainedRate {
		return &tenancy.ExceededError{Quota: "retained_rate", Limit: l.RetainedRate, Usage: l.RetainedRate, RetryAfter: 1}
	}
	if e := s.refusal(ctx, t, m); e != nil {
		return e
	}
	// There is room by now, or the usage is not known.
	switch {
	case quota == dataplane.QuotaRetained && l.RetainedMessages >= 0:
		return &tenancy.ExceededError{Quota: "retained_messages", Limit: l.RetainedMessages, Usage: l.RetainedMessages}
	case quota == dataplane.QuotaRetained:
		return &tenancy.ExceededError{Quota: "retained_bytes", Limit: l.RetainedBytes, Usage: l.RetainedBytes}
	}
	return errs.New(errs.Quota, "a quota of the tenant refuses the message; its usage of retained_messages, retained_bytes and retained_rate says which")
}

// refusal returns the quota that may refuse a new retained message, or nil if
// none would; also if the brokers do not say.
func (s *Server) refusal(ctx context.Context, t *tenancy.Tenant, m *mqtt.Message) *tenancy.ExceededError {
	count, size := t.Limits.RetainedMessages, t.Limits.RetainedBytes
	if !m.Retain || len(m.Payload) == 0 || count < 0 && size < 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, usageTimeout)
	defer cancel()
	a, err := s.cfg.Data.Query(ctx, link.Query{Kind: link.QueryUsage, Tenant: t.ID})
	switch {
	case err != nil:
		s.log.Warn("usage is not known", "tenant", t.ID, "error", err)
	case count >= 0 && a.Usage.Retained >= count:
		return &tenancy.ExceededError{Quota: "retained_messages", Limit: count, Usage: a.Usage.Retained}
	case size >= 0 && a.Usage.RetainedBytes+int64(m.Size()) > size:
		return &tenancy.ExceededError{Quota: "retained_bytes", Limit: size, Usage: a.Usage.RetainedBytes}
	}
	return nil
}

// message makes a Message of the request.
func message(in *PublishRequest) (mqtt.Message, error) {
	m := mqtt.Message{Topic: []byte(in.Topic), QoS: mqtt.QoS(in.QoS), Retain: in.Retain}
	if err := topic.ValidateName(m.Topic); err != nil {
		return m, errs.Coded(errs.Invalid, "topic_invalid", "topic: %w", err)
	}
	switch {
	case in.Payload != nil && in.PayloadBase64 != nil:
		return m, errs.Coded(errs.Invalid, "payload_invalid", "expected payload or payload_base64, found both")
	case in.Payload != nil:
		m.Payload = []byte(*in.Payload)
	case in.PayloadBase64 != nil:
		var err error
		if m.Payload, err = base64.StdEncoding.DecodeString(*in.PayloadBase64); err != nil {
			return m, errs.Coded(errs.Invalid, "payload_invalid", "payload_base64: expected base64 (RFC 4648 §4): %w", err)
		}
	}
	if in.Properties == nil {
		return m, nil
	}
	return m, setProperties(&m, in.Properties)
}

func setProperties(m *mqtt.Message, in *MessageProperties) error {
	p := dataplane.Properties{
		UTF8: in.PayloadFormatIndicator == 1, ContentType: in.ContentType, ResponseTopic: in.ResponseTopic, User: in.UserProperties,
	}
	if in.MessageExpiryInterval != nil {
		m.Expiry, m.HasExpiry = *in.MessageExpiryInterval, true
	}
	if p.UTF8 && !utf8.Valid(m.Payload) {
		return errs.Coded(errs.Invalid, "payload_invalid", "payload_format_indicator is 1, but the payload is not UTF-8")
	}
	var err error
	if in.CorrelationData != nil {
		if p.CorrelationData, err = base64.StdEncoding.DecodeString(*in.CorrelationData); err != nil {
			return errs.Coded(errs.Invalid, "properties_invalid", "correlation_data: expected base64 (RFC 4648 §4): %w", err)
		}
	}
	if m.Properties, err = p.Encode(); err != nil {
		return errs.Coded(errs.Invalid, "properties_invalid", "properties: %w", err)
	}
	return nil
}

// mayPublish holds a message to what the tenant's clients are held to.
func mayPublish(t *tenancy.Tenant, m *mqtt.Message) error {
	if !t.Grant.MayPublish(m.Topic, m.QoS, m.Retain) {
		return errs.Coded(errs.Denied, "topic_forbidden", "the tenant's clients may not publish to %q", m.Topic)
	}
	switch _, s := t.Rules(nil); {
	case int64(m.QoS) > s.MaximumQoS:
		return errs.Coded(errs.Conflict, "qos_not_supported", "the tenant's setting maximum_qos is %d", s.MaximumQoS)
	case m.Retain && !s.RetainAvailable:
		return errs.Coded(errs.Conflict, "retain_not_supported", "the tenant's setting retain_available is off")
	}
	for _, q := range []struct {
		name  string
		limit int64
		usage int
	}{
		{"packet_size", t.Limits.PacketSize, m.Size()},
		{"topic_length", t.Limits.TopicLength, len(m.Topic)},
		{"topic_levels", t.Limits.TopicLevels, topic.Levels(m.Topic)},
		{"topic_level_length", t.Limits.TopicLevelLength, longestLevel(m.Topic)},
	} {
		if q.limit >= 0 && int64(q.usage) > q.limit {
			return &tenancy.ExceededError{Quota: q.name, Limit: q.limit, Usage: int64(q.usage)}
		}
	}
	return nil
}

// longestLevel is the length of the longest level of a topic, in bytes.
func longestLevel(name []byte) (n int) {
	for level := range bytes.SplitSeq(name, []byte("/")) {
		n = max(n, len(level))
	}
	return n
}

func (s *Server) listRetained(ctx context.Context, in *listRetainedInput) (*listRetainedOutput, error) {
	after, err := readCursor(in.Cursor)
	if err != nil {
		return nil, err
	}
	if err := topic.ValidateFilter(in.Filter); err != nil {
		return nil, errs.Coded(errs.Invalid, "filter_invalid", "filter: %w", err)
	}
	if _, _, shared, _ := topic.ParseShare(in.Filter); shared {
		return nil, errs.Coded(errs.Invalid, "filter_invalid", "filter: a shared subscription has no retained messages")
	}
	a, err := s.cfg.Data.Query(ctx, link.Query{Kind: link.QueryRetained, Tenant: tenantOf(ctx).ID, Filter: in.Filter, Cursor: after, Limit: in.Limit})
	if err != nil {
		return nil, err
	}
	out := &listRetainedOutput{Body: RetainedList{Items: []RetainedMessage{}, Next: writeCursor(a.Next)}}
	for i := range a.Retained {
		item, err := retainedBody(&a.Retained[i])
		if err != nil {
			return nil, err
		}
		out.Body.Items = append(out.Body.Items, item)
	}
	return out, nil
}

func retainedBody(r *link.RetainedInfo) (RetainedMessage, error) {
	m := &r.Message
	out := RetainedMessage{
		Topic: string(m.Topic), QoS: int(m.QoS), PayloadBase64: base64.StdEncoding.EncodeToString(m.Payload), StoredAt: unixMilli(r.StoredAt),
	}
	if utf8.Valid(m.Payload) {
		text := string(m.Payload)
		out.Payload = &text
	}
	if len(m.Properties) == 0 && !m.HasExpiry {
		return out, nil
	}
	p, err := dataplane.DecodeProperties(m.Properties)
	if err != nil {
		return out, err
	}
	out.Properties = &MessageProperties{ContentType: p.ContentType, ResponseTopic: p.ResponseTopic, UserProperties: p.User}
	if p.UTF8 {
		out.Properties.PayloadFormatIndicator = 1
	}
	if m.HasExpiry {
		out.Properties.MessageExpiryInterval = &m.Expiry
	}
	if p.CorrelationData != nil {
		text := base64.StdEncoding.EncodeToString(p.CorrelationData)
		out.Properties.CorrelationData = &text
	}
	return out, nil
}
