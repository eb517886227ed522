// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"sync"

	"github.com/manormq/manor/infra/mqtt"
)

// crate is what one turn publishes to another shard and waits for no answer to:
// parcels with their messages, in memory that is used again. Its messages are
// views of the turn that unpacks it.
type crate struct {
	parcels  []parcel
	messages []mqtt.Message // of parcels, by index
	buf      []byte
}

var crates = sync.Pool{New: func() any { return new(crate) }}

// cratedPayload is the largest payload in a crate, which has a copy for each shard:
// of a larger one the shards share one.
const cratedPayload = 4 << 10

// crateBytes is from how many bytes of messages on another crate is begun.
const crateBytes = maxPooledBytes / 2

// pack puts a publish of the session from, which nobody waits for, into the crate
// for another shard.
func (s *Shard) pack(to *Shard, from *sess, m *mqtt.Message, expireAt int64) {
	at := s.packing[to.index] - 1
	if at < 0 || len(s.outgoing[at].item.crate.buf) >= crateBytes {
		// The overhead is counted for each parcel, and once more by post.
		s.leave(to, item{kind: itemCrate, crate: crates.Get().(*crate), size: -itemOverhead})
		at = len(s.outgoing) - 1
		s.packing[to.index] = at + 1
	}
	it := &s.outgoing[at].item
	c := it.crate
	n := len(c.parcels)
	if n < cap(c.parcels) {
		c.parcels = c.parcels[:n+1] // with the memory of its lists
	} else {
		c.parcels = append(c.parcels, parcel{})
	}
	f := &s.fans[to.index]
	p := &c.parcels[n]
	p.tenant, p.from, p.expireAt, p.crated = from.tenant, from, expireAt, true
	p.lists, p.direct = append(p.lists[:0], f.lists...), append(p.direct[:0], f.direct...)
	p.retain, p.keep, p.mark = f.retain, f.keep, f.mark
	receivers := f.receivers()
	f.reset()
	var own mqtt.Message
	own, c.buf = m.CloneTo(c.buf)
	c.messages = append(c.messages, own)
	it.size += (own.Size() + itemOverhead) * receivers
}

// unpack does what is in a crate.
func (s *Shard) unpack(c *crate) {
	for i := range c.parcels {
		p := &c.parcels[i]
		p.msg = &c.messages[i]
		s.accept(p)
	}
	s.unpacked = append(s.unpacked, c)
}

// empty gives the crate's memory back.
func (c *crate) empty() {
	if len(c.parcels) > maxPooledFrames || cap(c.buf) > 2*maxPooledBytes {
		return
	}
	for i := range c.parcels {
		p := &c.parcels[i]
		clear(p.lists)
		clear(p.direct)
		*p = parcel{lists: p.lists, direct: p.direct}
	}
	clear(c.messages)
	c.parcels, c.messages, c.buf = c.parcels[:0], c.messages[:0], c.buf[:0]
	crates.Put(c)
}
