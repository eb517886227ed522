// SPDX-License-Identifier: Apache-2.0

package tenancy

import (
	"time"

	"github.com/manormq/manor/infra/mqtt"
)

// CheckSubject is where a tenancyd answers a CheckQuestion with a CheckAnswer, both in
// JSON.
const CheckSubject = "policy.check"

// CheckTime is how long a gateway waits for what mqtt.check says; then it is denied.
const CheckTime = 2 * time.Second

// ConnectTime is how long a gateway waits for what mqtt.connect says of a client.
const ConnectTime = 2 * time.Second

// CheckTTLMost is for how long a verdict of mqtt.check is remembered at most.
const CheckTTLMost = time.Hour

// CheckItem is something that a client wants to do, which its grant allows, as a tenant's
// mqtt.check sees it. It is a plain value.
type CheckItem struct {
	// Action is ActionPublish or ActionSubscribe.
	Action string `json:"action"`
	// Topic is the topic name, or the filter as the client has it, with $share/NAME/.
	Topic string   `json:"topic"`
	QoS   mqtt.QoS `json:"qos"`
	// Retain, PayloadSize in bytes and UserProperties are of a PUBLISH, or a will.
	Retain         bool           `json:"retain"`
	PayloadSize    int            `json:"payload_size"`
	UserProperties []UserProperty `json:"user_properties,omitempty"`
	// IsWill is that it is the will of a CONNECT.
	IsWill bool `json:"is_will"`
}

// UserProperty is one of MQTT 5 (§3.3.2.3.7).
type UserProperty struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// CheckQuestion asks what a tenant's mqtt.check says of what a client of a class wants.
type CheckQuestion struct {
	Tenant   string      `json:"tenant"`
	Revision uint64      `json:"revision"`
	Class    string      `json:"class"`
	Arrival  Arrival     `json:"arrival"`
	Items    []CheckItem `json:"items"`
}

// CheckAnswer has a verdict for each item, in order.
type CheckAnswer struct {
	Verdicts []CheckVerdict `json:"verdicts"`
}

// CheckVerdict is what mqtt.check says of an item; the zero CheckVerdict denies. A policy
// that fails says no.
type CheckVerdict struct {
	Allow bool `json:"allow"`
	// Reason is what the client is told of a denial, Why what the log is.
	Reason string `json:"reason,omitempty"`
	Why    string `json:"why,omitempty"`
	// TTL is for how many seconds it holds for the same client, action, topic, QoS and
	// retain flag; 0 is for this once.
	TTL int64 `json:"ttl,omitempty"`
	// Topic is where a PUBLISH goes instead; empty is where it wants to.
	Topic string `json:"topic,omitempty"`
	// QoS is the highest that a subscription is granted; nil is as it wants.
	QoS *mqtt.QoS `json:"qos,omitempty"`
}
