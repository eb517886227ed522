// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"sync"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/route"
)

// crate is what one turn publishes to another shard and waits for no answer to, in
// memory that is used again. Its messages are views of the turn that unpacks it.
//
// With many filters what a publish costs is the memory that it touches, so that
// what stands here for each one is small.
type crate struct {
	pieces   []piece
	messages []mqtt.Message // of pieces, by index
	lists    []route.Part[*sess]
	direct   []direct
	buf      []byte
}

// piece is one publish of a crate: what a parcel has that nobody waits for.
type piece struct {
	tenant        *Tenant
	from          *sess
	expireAt      int64
	mark          uint64
	most          *receivers
	lists, direct int32 // where its own end in the crate's
	retain        partition.ID
	keep          bool
}

var crates = sync.Pool{New: func() any { return new(crate) }}

// cratedPayload is the largest payload in a crate, which has a copy for each shard:
// of a larger one the shards share one.
const cratedPayload = 4 << 10

// crateBytes is from how many bytes of messages on another crate is begun.
const crateBytes = maxPooledBytes / 2

// pack puts a publish of the session from, which nobody waits for, into the crate
// for another shard.
func (s *Shard) pack(to *Shard, from *sess, m *mqtt.Message, v *view) {
	at := s.packing[to.index] - 1
	if at < 0 || len(s.outgoing[at].item.crate.buf) >= crateBytes {
		// The overhead is counted for each parcel, and once more by post.
		s.leave(to, item{kind: itemCrate, crate: crates.Get().(*crate), size: -itemOverhead})
		at = len(s.outgoing) - 1
		s.packing[to.index] = at + 1
	}
	it := &s.outgoing[at].item
	c := it.crate
	f := &s.fans[to.index]
	c.lists, c.direct = append(c.lists, f.lists...), append(c.direct, f.direct...)
	c.pieces = append(c.pieces, piece{
		tenant: from.tenant, from: from, expireAt: v.expireAt, most: v.most, mark: f.mark, retain: f.retain, keep: f.keep,
		lists: int32(len(c.lists)), direct: int32(len(c.direct)),
	})
	receivers := f.receivers()
	f.reset()
	var own mqtt.Message
	own, c.buf = m.CloneTo(c.buf)
	c.messages = append(c.messages, own)
	it.size += (own.Size() + itemOverhead) * receivers
}

// unpack does what is in a crate.
func (s *Shard) unpack(c *crate) {
	q := &s.uncrated
	q.crated = true
	var lists, direct int32
	for i := range c.pieces {
		p := &c.pieces[i]
		q.tenant, q.from, q.expireAt, q.mark, q.retain, q.keep, q.most = p.tenant, p.from, p.expireAt, p.mark, p.retain, p.keep, p.most
		q.msg, q.lists, q.direct = &c.messages[i], c.lists[lists:p.lists:p.lists], c.direct[direct:p.direct:p.direct]
		lists, direct = p.lists, p.direct
		s.accept(q)
	}
	*q = parcel{}
	s.unpacked = append(s.unpacked, c)
}

// empty gives the crate's memory back.
func (c *crate) empty() {
	if len(c.pieces) > maxPooledFrames || len(c.lists)+len(c.direct) > 4*maxPooledFrames || cap(c.buf) > 2*maxPooledBytes {
		return
	}
	clear(c.pieces)
	clear(c.messages)
	clear(c.lists)
	clear(c.direct)
	*c = crate{pieces: c.pieces[:0], messages: c.messages[:0], lists: c.lists[:0], direct: c.direct[:0], buf: c.buf[:0]}
	crates.Put(c)
}
