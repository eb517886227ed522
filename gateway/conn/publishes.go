// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"bytes"
	"hash/maphash"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/tenancy"
)

const (
	// memoTopics is of how many topics a connection knows what its grant says: most
	// clients publish to few. memoLength is the longest of them, in bytes.
	memoTopics = 8
	memoLength = 256
)

// memo is what a grant of the tenant's own policy has said of topics. It is made with the
// first publish.
type memo struct {
	last    lastTopic
	entries [memoTopics]memoEntry // the place of one is by its slot
	// asked is the entry of the topic that mayPublish was asked about last; nil if that has
	// no place.
	asked *memoEntry
}

// lastTopic is all that is to be known to let the next publish to the same topic pass, side
// by side in 64 bytes: most clients stay with a topic for a while.
type lastTopic struct {
	grant  *tenancy.Grant // that allows what says does; nil for none
	rules  *Rules         // within whose limits the topic is
	says   tenancy.Allowance
	length uint8
	topic  [46]byte
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

// permitted reports whether what was known at the last publish is enough to let m pass: its
// topic, grant and rules were the same. If not, permit is to be asked. It belongs to the
// inbound half.
func (c *Conn) permitted(grant *tenancy.Grant, rules *Rules, m *mqtt.Message) bool {
	if c.memo == nil {
		return false
	}
	l := &c.memo.last
	if l.grant != grant || l.rules != rules || !l.says.Allows(m.QoS, m.Retain) || string(l.topic[:l.length]) != string(m.Topic) {
		return false
	}
	if c.samples%sampleEvery == 0 { // decided notes this one
		return false
	}
	c.samples++
	return true
}

// permit reports whether grant and rules allow p to be published to its topic; it answers if
// they do not.
func (c *Conn) permit(grant *tenancy.Grant, rules *Rules, p *packet.Publish, fx *Effects) bool {
	m := &p.Message
	may := c.mayPublish(grant, m)
	asks := grant.Asks()
	if !may || !grant.Default() && !asks {
		c.decided(grant, m, may, fx)
	}
	if !may {
		c.refuse(p, DropDenied, mqtt.NotAuthorized, "the grant of this credential does not allow to publish to this topic", fx)
		return false
	}
	if b := c.beyondLimits(grant, m.Topic, rules); b.quota != NotRefused {
		c.refuse(p, DropTopic, mqtt.TopicNameInvalid, "the topic has "+b.String(), fx)
		return false
	}
	if !grant.Default() && !asks {
		c.memo.keep(grant, rules, m.Topic)
	}
	return true
}

// keep has the next publish to topic permitted, of which mayPublish and beyondLimits were
// asked just now.
func (k *memo) keep(grant *tenancy.Grant, rules *Rules, topic []byte) {
	k.last.grant = nil
	if k.asked == nil || len(topic) > len(k.last.topic) {
		return
	}
	k.last.grant, k.last.rules, k.last.says = grant, rules, k.asked.says
	k.last.length = uint8(copy(k.last.topic[:], topic))
}

// mayPublish is grant.MayPublish of the message, which is not asked again about a topic
// of lately. It belongs to the inbound half.
func (c *Conn) mayPublish(grant *tenancy.Grant, m *mqtt.Message) bool {
	if grant.Default() {
		return grant.MayPublish(m.Topic, m.QoS, m.Retain)
	}
	if c.memo == nil {
		c.memo = &memo{}
	}
	if c.memo.asked = nil; len(m.Topic) == 0 || len(m.Topic) > memoLength {
		return grant.MayPublish(m.Topic, m.QoS, m.Retain)
	}
	e := &c.memo.entries[slot(m.Topic)]
	if e.grant != grant || !bytes.Equal(e.topic, m.Topic) {
		e.grant, e.topic, e.says, e.rules = grant, append(e.topic[:0], m.Topic...), grant.Publishes(m.Topic), nil
	}
	c.memo.asked = e
	return e.says.Allows(m.QoS, m.Retain)
}

// beyondLimits is beyondLimits of the topic about which mayPublish was asked last, with the
// same grant. What is within the limits is not looked at again.
func (c *Conn) beyondLimits(grant *tenancy.Grant, topic []byte, rules *Rules) beyond {
	if grant.Default() || c.memo.asked == nil {
		return beyondLimits(topic, rules)
	}
	e := c.memo.asked
	if e.rules == rules {
		return beyond{}
	}
	b := beyondLimits(topic, rules)
	if b.quota == NotRefused {
		e.rules = rules
	}
	return b
}
