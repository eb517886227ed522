// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"sync"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
)

// bundle is what a gateway said while the shard was busy: frames that wait in its
// mailbox, in memory of their own.
type bundle struct {
	chs    []*Channel
	frames []link.UpFrame
	buf    []byte // the bytes of the publishes
}

var bundles = sync.Pool{New: func() any { return new(bundle) }}

// maxPooledFrames is the most frames whose memory is used again.
const maxPooledFrames = 1024

// postFrames leaves copies of frames in the lanes of their tenants. r is as for
// post.
func (s *Shard) postFrames(chs []*Channel, frames []link.UpFrame, r *run) {
	for begin := 0; begin < len(frames); {
		t, end, size := chs[begin].tenant, begin, -itemOverhead
		b, l := bundles.Get().(*bundle), &t.lanes[s.index]
		most := l.frames()
		for ; end < len(frames) && chs[end].tenant == t && end-begin < most && size < laneQuantum; end++ {
			size += itemOverhead + b.add(chs[end], &frames[end])
		}
		s.post(item{kind: itemFrames, lane: l, at: s.set.now(), bundle: b, size: size}, r)
		begin = end
	}
}

// add copies f and returns what it counts in a mailbox.
func (b *bundle) add(ch *Channel, f *link.UpFrame) int {
	c, size := *f, f.Cost()
	switch f.Kind {
	case link.UpPublish:
		c.Message, b.buf = f.Message.CloneTo(b.buf)
	case link.UpSubscribe:
		c.Subscribe = append([]mqtt.Subscription(nil), f.Subscribe...)
	case link.UpUnsubscribe:
		c.Unsubscribe = append([]string(nil), f.Unsubscribe...)
	case link.UpOpen:
		o := *f.Open
		if o.Will != nil {
			o.Will = &mqtt.Will{Message: o.Will.Message.Clone(), Delay: o.Will.Delay}
			size += o.Will.Message.Size()
		}
		c.Open = &o
	case link.UpClose:
		cl := *f.Close
		c.Close = &cl
	case link.UpLimits:
		l := *f.Limits
		c.Limits = &l
	case link.UpAck, link.UpCredit, link.UpTooLarge, link.UpQuery, link.UpPaused:
		// nothing but numbers, or answered by the link
	}
	b.chs, b.frames = append(b.chs, ch), append(b.frames, c)
	return size
}

// reuse gives back the memory of the turn's messages, to which nothing refers now
// that its batches were handed over.
func (s *Shard) reuse() {
	for i, f := range s.delivered {
		f.delivered()
		s.delivered[i] = nil
	}
	s.delivered = s.delivered[:0]
	for i, b := range s.read {
		s.read[i] = nil
		clear(b.chs)
		clear(b.frames)
		if cap(b.frames) <= maxPooledFrames && cap(b.buf) <= maxPooledBytes {
			b.chs, b.frames, b.buf = b.chs[:0], b.frames[:0], b.buf[:0]
			bundles.Put(b)
		}
	}
	s.read = s.read[:0]
	for i, c := range s.unpacked {
		s.unpacked[i] = nil
		c.empty()
	}
	s.unpacked = s.unpacked[:0]
}
