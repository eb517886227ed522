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
}

type memoEntry struct {
	grant *tenancy.Grant // that has said it; another one is asked
	topic []byte
	says  tenancy.Allowance
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
		if len(m.Topic) > memoLength {
			return says.Allows(m.QoS, m.Retain)
		}
		e.grant, e.topic, e.says = grant, append(e.topic[:0], m.Topic...), says
	}
	return e.says.Allows(m.QoS, m.Retain)
}
