// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"bytes"
	"hash/maphash"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/tenancy"
)

const (
	// memoTopics is of how many topics a connection knows what its grant says: most
	// clients publish to few. memoLength is the longest of them, in bytes.
	memoTopics = 8
	memoLength = 256
)

// memo is what a grant of the tenant's own policy has said of topics; the place of one
// is by its slot. It is made with the first publish.
type memo struct {
	entries [memoTopics]memoEntry
	last    *memoEntry // most clients stay with a topic for a while
	// known reports whether last is of the topic that was asked about last: a long one has
	// no place.
	known bool
}

type memoEntry struct {
	grant *tenancy.Grant // that has said it; another one is asked
	topic []byte
	says  tenancy.Allowance
	rules *Rules // within whose limits on topics it is; nil if that is not known
}

// seed makes places differ from process to process, so that nobody can choose topics
// that drive each other out. Nothing else depends on it.
var seed = maphash.MakeSeed()

// slot is the place of a topic.
func slot(topic []byte) uint64 { return maphash.Bytes(seed, topic) % memoTopics }

// mayPublish is grant.MayPublish of the message, which is not asked again about a topic
// of lately. It belongs to the inbound half.
func (c *Conn) mayPublish(grant *tenancy.Grant, m *mqtt.Message) bool {
	if grant.Default() || len(m.Topic) == 0 {
		return grant.MayPublish(m.Topic, m.QoS, m.Retain)
	}
	if c.memo == nil {
		c.memo = &memo{}
		c.memo.last = &c.memo.entries[0]
	}
	e := c.memo.last
	if e.grant != grant || !bytes.Equal(e.topic, m.Topic) {
		e = &c.memo.entries[slot(m.Topic)]
		c.memo.last = e
	}
	if e.grant != grant || !bytes.Equal(e.topic, m.Topic) {
		says := grant.Publishes(m.Topic)
		if c.memo.known = len(m.Topic) <= memoLength; !c.memo.known {
			return says.Allows(m.QoS, m.Retain)
		}
		e.grant, e.topic, e.says, e.rules = grant, append(e.topic[:0], m.Topic...), says, nil
	}
	c.memo.known = true
	return e.says.Allows(m.QoS, m.Retain)
}

// beyondLimits is beyondLimits of the topic about which mayPublish was asked last, with the
// same grant. What is within the limits is not looked at again.
func (c *Conn) beyondLimits(grant *tenancy.Grant, topic []byte, rules *Rules) beyond {
	if grant.Default() || c.memo == nil || !c.memo.known {
		return beyondLimits(topic, rules)
	}
	e := c.memo.last
	if e.rules == rules {
		return beyond{}
	}
	b := beyondLimits(topic, rules)
	if b.quota == NotRefused {
		e.rules = rules
	}
	return b
}
