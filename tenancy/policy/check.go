// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"context"
	"fmt"
	"strings"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/topic"
	"github.com/manormq/manor/tenancy"
)

const (
	checkRule   = "data.mqtt.check"
	dynamicRule = "data.mqtt.dynamic"
)

// readDynamic evaluates mqtt.dynamic, and prepares mqtt.check.
func (p *Program) readDynamic(ctx context.Context) error {
	if p.has(dynamicRule) {
		q, err := p.prepare(ctx, dynamicRule)
		if err != nil {
			return faults(err)
		}
		v, err := p.eval(ctx, q, nil, nil)
		is, ok := v.(bool)
		if err != nil || !ok {
			return fault("mqtt.dynamic: expected true or false, which depends on nothing (%v)", err)
		}
		p.Dynamic = is
	}
	checks := p.has(checkRule)
	switch {
	case p.Dynamic && !checks:
		return fault("mqtt.dynamic is true, expected the rule check in package mqtt, such as: check := {\"allow\": true} if input.payload_size < 1000")
	case checks && !p.has(dynamicRule):
		return fault("mqtt.check would never be asked: expected dynamic := true beside it, or dynamic := false to have it rest")
	case !p.Dynamic:
		return nil
	}
	var err error
	if p.check, err = p.prepare(ctx, checkRule); err != nil {
		return faults(err)
	}
	return nil
}

// checkInput is the input of mqtt.check.
type checkInput struct {
	Tenant TenantInput `json:"tenant"`
	Class  string      `json:"class"`
	tenancy.Arrival
	tenancy.CheckItem
}

// Check evaluates mqtt.check for what a client of a class wants to do. What is undefined
// denies, and so does what is wrong or fails, of which Why of the verdict says so.
func (p *Program) Check(ctx context.Context, t TenantInput, class string, a *tenancy.Arrival, item *tenancy.CheckItem) tenancy.CheckVerdict {
	if !p.Dynamic {
		return tenancy.CheckVerdict{Why: "mqtt.check: the revision is not dynamic"}
	}
	in := checkInput{t, class, *a, *item}
	if in.UserProperties == nil {
		in.UserProperties = []tenancy.UserProperty{}
	}
	v, err := p.eval(ctx, p.check, in, nil)
	if err != nil {
		return tenancy.CheckVerdict{Why: "mqtt.check: " + err.Error()}
	}
	if v == nil {
		return tenancy.CheckVerdict{Reason: "the tenant's policy does not allow this: mqtt.check is undefined for it"}
	}
	var said struct {
		Allow  bool   `json:"allow"`
		Reason string `json:"reason"`
		TTL    int64  `json:"ttl"`
		Topic  string `json:"topic"`
		QoS    *int64 `json:"qos"`
	}
	if err := strict(v, &said); err != nil {
		return tenancy.CheckVerdict{Why: fmt.Sprintf("mqtt.check: expected an object with allow, and if wanted reason, ttl, topic and qos: %v", err)}
	}
	most := int64(tenancy.CheckTTLMost.Seconds())
	answer := tenancy.CheckVerdict{Allow: said.Allow, Reason: reasonOf(said.Reason), TTL: said.TTL}
	wrong := ""
	switch {
	case said.TTL < 0 || said.TTL > most:
		wrong = fmt.Sprintf("expected ttl to be 0 to %d seconds, found %d", most, said.TTL)
	case said.Topic != "" && item.IsWill:
		wrong = "a will keeps its topic: expected no topic if input.is_will"
	case said.Topic != "" && item.Action != tenancy.ActionPublish:
		wrong = "a topic is for publishes alone: a subscription keeps its filter"
	case said.Topic != "" && (topic.ValidateName([]byte(said.Topic)) != nil || strings.HasPrefix(said.Topic, "$")):
		wrong = fmt.Sprintf("expected topic to be a topic name that does not begin with $, found %.100q", said.Topic)
	case said.QoS != nil && item.Action != tenancy.ActionSubscribe:
		wrong = "a qos is for subscriptions alone: a publish keeps its own"
	case said.QoS != nil && (*said.QoS < 0 || *said.QoS > 2):
		wrong = fmt.Sprintf("expected qos to be 0, 1 or 2, found %d", *said.QoS)
	}
	if wrong != "" {
		return tenancy.CheckVerdict{Why: "mqtt.check: " + wrong}
	}
	if said.Topic != item.Topic {
		answer.Topic = said.Topic
	}
	if said.QoS != nil {
		q := mqtt.QoS(*said.QoS)
		answer.QoS = &q
	}
	return answer
}

// reasonOf cuts a reason to what clients are told.
func reasonOf(text string) string {
	if len(text) > reasonMost {
		text = strings.ToValidUTF8(text[:reasonMost], "")
	}
	return text
}
