// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"encoding/binary"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/topic"
)

// Properties are those of a PUBLISH that a server forwards unaltered
// [MQTT-3.3.2.3].
type Properties struct {
	// UTF8 says that the payload is UTF-8 (Payload Format Indicator 1).
	UTF8            bool
	ContentType     string
	ResponseTopic   string
	CorrelationData []byte
	User            []UserProperty
}

// UserProperty is a name and a value, of which there may be several equal ones,
// in an order that is kept [MQTT-3.3.2-18].
type UserProperty struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// The identifiers of MQTT 5 table 2-4.
const (
	payloadFormat   = 0x01
	contentType     = 0x03
	responseTopic   = 0x08
	correlationData = 0x09
	userProperty    = 0x26
)

// Encode writes the properties as mqtt.Message.Properties has them. The error
// is Invalid and names the property.
func (p *Properties) Encode() ([]byte, error) {
	var b []byte
	if p.UTF8 {
		b = append(b, payloadFormat, 1)
	}
	text := func(what, s string) error {
		if len(s) > 65535 || !topic.ValidUTF8([]byte(s)) {
			return errs.New(errs.Invalid, "%s: expected at most 65,535 bytes of UTF-8 without U+0000", what)
		}
		b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
		b = append(b, s...)
		return nil
	}
	if p.ContentType != "" {
		b = append(b, contentType)
		if err := text("content_type", p.ContentType); err != nil {
			return nil, err
		}
	}
	if p.ResponseTopic != "" {
		if err := topic.ValidateName([]byte(p.ResponseTopic)); err != nil {
			return nil, errs.New(errs.Invalid, "response_topic: %w", err)
		}
		b = append(b, responseTopic)
		if err := text("response_topic", p.ResponseTopic); err != nil {
			return nil, err
		}
	}
	if p.CorrelationData != nil {
		if len(p.CorrelationData) > 65535 {
			return nil, errs.New(errs.Invalid, "correlation_data: expected at most 65,535 bytes")
		}
		b = append(b, correlationData)
		b = binary.BigEndian.AppendUint16(b, uint16(len(p.CorrelationData)))
		b = append(b, p.CorrelationData...)
	}
	for _, u := range p.User {
		b = append(b, userProperty)
		if err := text("user_properties", u.Name); err != nil {
			return nil, err
		}
		if err := text("user_properties", u.Value); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// DecodeProperties is the reverse of Encode. What it does not know it takes for
// damage, because a length cannot be told without knowing.
func DecodeProperties(b []byte) (Properties, error) {
	var p Properties
	damaged := errs.New(errs.Internal, "stored properties are damaged")
	data := func() ([]byte, bool) {
		if len(b) < 2 {
			return nil, false
		}
		n := int(binary.BigEndian.Uint16(b))
		if len(b) < 2+n {
			return nil, false
		}
		d := b[2 : 2+n]
		b = b[2+n:]
		return d, true
	}
	for len(b) > 0 {
		id := b[0]
		b = b[1:]
		if id == payloadFormat {
			if len(b) == 0 {
				return p, damaged
			}
			p.UTF8 = b[0] == 1
			b = b[1:]
			continue
		}
		d, ok := data()
		if !ok {
			return p, damaged
		}
		switch id {
		case contentType:
			p.ContentType = string(d)
		case responseTopic:
			p.ResponseTopic = string(d)
		case correlationData:
			p.CorrelationData = append([]byte{}, d...)
		case userProperty:
			value, ok := data()
			if !ok {
				return p, damaged
			}
			p.User = append(p.User, UserProperty{Name: string(d), Value: string(value)})
		default:
			return p, damaged
		}
	}
	return p, nil
}
