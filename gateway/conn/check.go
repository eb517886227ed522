// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"encoding/binary"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/infra/topic"
	"github.com/manormq/manor/tenancy"
)

// Memory bound of what a connection remembers of mqtt.check: checksKept verdicts, of
// topics and rewritten topics of up to memoLength bytes each, with reasons of 256.
const (
	checksKept = 256
	// askedItems and askedBytes bound what is asked at once: of a SUBSCRIBE with more
	// filters the others are asked about afterwards.
	askedItems = 200
	askedBytes = 256 << 10
	// propertiesMost is how many bytes of user properties are asked about.
	propertiesMost = 8 << 10
)

// Asking is what mqtt.check is to be asked before a packet is handled. It is a plain
// value.
type Asking struct {
	// Grant is the one under which it is asked.
	Grant *tenancy.Grant
	Items []tenancy.CheckItem
}

// Came reports whether there is anything to ask: the packet was not handled, and is to
// be given to Handle once more when Answer was called.
func (a *Asking) Came() bool { return len(a.Items) > 0 }

// checkKey is what a verdict holds for.
type checkKey struct {
	action string
	topic  string
	qos    mqtt.QoS
	retain bool
}

// verdict is what mqtt.check has said.
type verdict struct {
	allow   bool
	reason  string
	topic   []byte // of a publish that goes elsewhere; nobody changes it
	most    mqtt.QoS
	expires int64 // in Unix milliseconds
}

// checks is what mqtt.check has said under a grant; the inbound half's.
type checks struct {
	grant *tenancy.Grant
	// once are the answers about the packet that is handled next.
	once map[checkKey]verdict
	kept *simplelru.LRU[checkKey, verdict]
	// denial is what the last subscription was refused with.
	denial string
}

// Answer takes what mqtt.check has said of the items of an Asking, at a time in Unix
// milliseconds. Without verdicts all is denied for this once, with text. It belongs to the
// inbound half.
func (c *Conn) Answer(a *Asking, verdicts []tenancy.CheckVerdict, text string, now int64) {
	k := c.checksOf(a.Grant)
	for i := range a.Items {
		item := &a.Items[i]
		v := verdict{reason: text, most: mqtt.ExactlyOnce}
		ttl := int64(0)
		if i < len(verdicts) {
			said := &verdicts[i]
			v.allow, v.reason, ttl = said.Allow, said.Reason, said.TTL
			if said.Topic != "" {
				v.topic = []byte(said.Topic)
			}
			if said.QoS != nil {
				v.most = *said.QoS
			}
		}
		if v.reason == "" {
			v.reason = "the tenant's policy does not allow this (mqtt.check)"
		}
		key := checkKey{item.Action, item.Topic, item.QoS, item.Retain}
		if k.once == nil {
			k.once = map[checkKey]verdict{}
		}
		k.once[key] = v
		if ttl > 0 && len(item.Topic) <= memoLength && len(v.topic) <= memoLength {
			v.expires = now + 1000*ttl
			k.kept.Add(key, v)
		}
	}
}

// checksOf is what is remembered under that grant: what was said under another one is
// forgotten.
func (c *Conn) checksOf(grant *tenancy.Grant) *checks {
	if c.checks == nil || c.checks.grant != grant {
		kept, err := simplelru.NewLRU[checkKey, verdict](checksKept, nil)
		if err != nil {
			panic("conn: " + err.Error()) // of a size that is not positive
		}
		c.checks = &checks{grant: grant, kept: kept}
	}
	return c.checks
}

func (k *checks) of(key checkKey, now int64) (verdict, bool) {
	if v, ok := k.once[key]; ok {
		return v, true
	}
	v, ok := k.kept.Get(key)
	if ok && v.expires <= now {
		k.kept.Remove(key)
		return verdict{}, false
	}
	return v, ok
}

// checkPublish holds a PUBLISH that may pass otherwise to mqtt.check, and reports whether
// it does: it is refused, or asked about in fx.
func (c *Conn) checkPublish(grant *tenancy.Grant, p *packet.Publish, rules *Rules, fx *Effects) bool {
	m := &p.Message
	k := c.checksOf(grant)
	v, ok := k.of(checkKey{tenancy.ActionPublish, string(m.Topic), m.QoS, m.Retain}, fx.Now)
	if !ok {
		item, ok := CheckedMessage(m)
		if !ok {
			c.refuse(p, DropDenied, mqtt.NotAuthorized, "the tenant's policy looks at no more than 8 KiB of user properties", fx)
			return false
		}
		fx.Asking = Asking{grant, []tenancy.CheckItem{item}}
		return false
	}
	k.once = nil
	if !v.allow {
		c.refuse(p, DropDenied, mqtt.NotAuthorized, v.reason, fx)
		return false
	}
	c.decided(grant, m, true, fx)
	if v.topic != nil {
		if b := beyondLimits(v.topic, rules); b.quota != 0 {
			c.refuse(p, DropTopic, mqtt.TopicNameInvalid, "the topic that the tenant's policy gives it has "+b.String(), fx)
			return false
		}
		m.Topic = v.topic
	}
	return true
}

// CheckedMessage is a message as mqtt.check sees it; not ok if it has more user
// properties than are looked at.
func CheckedMessage(m *mqtt.Message) (item tenancy.CheckItem, ok bool) {
	item = tenancy.CheckItem{Action: tenancy.ActionPublish, Topic: string(m.Topic), QoS: m.QoS, Retain: m.Retain, PayloadSize: len(m.Payload)}
	item.UserProperties, ok = userProperties(m.Properties)
	return item, ok
}

// userProperties reads those of properties that were decoded before.
func userProperties(b []byte) (all []tenancy.UserProperty, ok bool) {
	size := 0
	text := func(b []byte) (s, rest []byte) {
		if len(b) < 2 || len(b)-2 < int(binary.BigEndian.Uint16(b)) {
			return nil, nil
		}
		n := 2 + int(binary.BigEndian.Uint16(b))
		return b[2:n], b[n:]
	}
	const payloadFormat, userProperty = 0x01, 0x26 // §2.2.2.2; the others here are strings and binary data
	for len(b) > 0 {
		id := b[0]
		b = b[1:]
		switch id {
		case payloadFormat:
			b = b[min(1, len(b)):]
		case userProperty:
			var name, value []byte
			name, b = text(b)
			value, b = text(b)
			if size += len(name) + len(value); size > propertiesMost {
				return nil, false
			}
			all = append(all, tenancy.UserProperty{Name: string(name), Value: string(value)})
		default:
			_, b = text(b)
		}
	}
	return all, true
}

// askFilters reports whether mqtt.check has said what it says of all filters of a
// SUBSCRIBE that are granted; else it is to be asked about some.
func (c *Conn) askFilters(grant *tenancy.Grant, p *packet.Subscribe, fx *Effects) bool {
	k := c.checksOf(grant)
	var items []tenancy.CheckItem
	size := 0
	for i := range p.Subscriptions {
		s := &p.Subscriptions[i]
		if _, _, _, err := topic.ParseShare(s.Filter); err != nil {
			continue
		}
		if _, ok := grant.MaySubscribe(s.Filter); !ok {
			continue
		}
		if _, ok := k.of(filterKey(s), fx.Now); ok {
			continue
		}
		items = append(items, tenancy.CheckItem{Action: tenancy.ActionSubscribe, Topic: s.Filter, QoS: s.QoS})
		if size += len(s.Filter); len(items) == askedItems || size >= askedBytes {
			break
		}
	}
	if len(items) == 0 {
		return true
	}
	fx.Asking = Asking{grant, items}
	return false
}

func filterKey(s *mqtt.Subscription) checkKey {
	return checkKey{action: tenancy.ActionSubscribe, topic: s.Filter, qos: s.QoS}
}

// checkFilter is what mqtt.check has said of a filter. What it was not asked about, as
// under a grant that has come this moment, is denied.
func (c *Conn) checkFilter(grant *tenancy.Grant, s *mqtt.Subscription, now int64) (most mqtt.QoS, ok bool) {
	k := c.checksOf(grant)
	v, known := k.of(filterKey(s), now)
	switch {
	case !known:
		k.denial = "the tenant's policy has changed meanwhile; try again"
	case !v.allow:
		k.denial = v.reason
	}
	return v.most, known && v.allow
}
