// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"errors"
	"sync"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/load"
	"github.com/manormq/manor/services/broker/partition"
)

// Channel is the image of one client's connection. Only its shard reads it
// after it was made, but for link, id and shard, which never change.
type Channel struct {
	link   *Link
	id     link.Channel
	shard  *Shard
	tenant *Tenant
	part   partition.ID

	sess *sess
	out  *out
	// taken and granted count the bytes of publishes; window is what was granted
	// last, active the last epoch in which that was.
	taken, granted uint64
	active         int64
	window         uint32
	due            bool // stands in the shard's list of windows
	// asked is how many SUBSCRIBE and UNSUBSCRIBE are not answered.
	asked int32
	pause
}

// lane is where what the gateway says about ch waits.
func (ch *Channel) lane() *lane { return &ch.tenant.lanes[ch.shard.index] }

// Link is the broker's end of a link to one gateway, or to the API. It
// implements link.Broker.
type Link struct {
	set      *Set
	gw       link.Gateway
	features uint32 // of the gateway

	mu struct {
		sync.RWMutex
		channels map[link.Channel]*Channel
		closed   bool
	}
}

// ErrClosed is returned by a link after Close.
var ErrClosed = errors.New("shard: link is closed")

// Attach makes the broker's end of a link whose other end is gw.
func (st *Set) Attach(gw link.Gateway) *Link {
	l := &Link{set: st, gw: gw, features: link.FeaturesOf(gw)}
	l.mu.channels = make(map[link.Channel]*Channel)
	st.links.Add(1)
	st.mu.Lock()
	st.mu.links[l] = struct{}{}
	st.mu.Unlock()
	if st.cluster != nil {
		l.tell(link.DownFrame{Kind: link.DownTable, Table: st.cluster.Table()})
	}
	for told := load.Calm; told != st.Load(); {
		told = st.Load()
		l.tellLoad(told)
	}
	return l
}

// Send implements link.Broker.
func (l *Link) Send(b *link.Up) error {
	r := runs.Get().(*run)
	err := l.send(b, r, true)
	l.set.finish(r)
	return err
}

// Post implements link.Broker.
func (l *Link) Post(b *link.Up) error { return l.send(b, nil, false) }

// Flush implements link.Broker: nothing waits, Send and Post have done it all.
func (l *Link) Flush() {}

// send gives runs of frames of one shard to it, in a turn of this goroutine if
// it is free. Frames of channels that are gone are dropped: their close has
// crossed them on the way.
func (l *Link) send(b *link.Up, r *run, direct bool) error {
	var (
		buf  [64]*Channel
		last *Channel
	)
	chs := buf[:0]
	begin := 0
	flush := func(end int) {
		if end > begin {
			s := chs[begin].shard
			if direct && s.acquire() {
				s.turn(chs[begin:end], b.Frames[begin:end], r)
			} else if !direct || !s.visit(chs[begin:end], b.Frames[begin:end], r) {
				s.postFrames(chs[begin:end], b.Frames[begin:end], r)
			}
		}
		begin = end
	}
	for i := range b.Frames {
		f := &b.Frames[i]
		var ch *Channel
		switch {
		case f.Kind == link.UpQuery:
			l.set.query(l, f.Query)
		case f.Kind == link.UpOpen:
			var err error
			if ch, err = l.open(f); err != nil {
				return err
			}
		case last != nil && last.id == f.Channel:
			ch = last
		default:
			l.mu.RLock()
			ch = l.mu.channels[f.Channel]
			closed := l.mu.closed
			l.mu.RUnlock()
			if closed {
				return ErrClosed
			}
		}
		if ch == nil {
			flush(i)
			chs = append(chs, nil)
			begin = i + 1
			continue
		}
		if i > begin && chs[begin].shard != ch.shard {
			flush(i)
		}
		chs = append(chs, ch)
		last = ch
	}
	flush(len(b.Frames))
	return nil
}

// open registers a channel with the shard that owns its client id.
func (l *Link) open(f *link.UpFrame) (*Channel, error) {
	t := l.set.Tenant(f.Open.Tenant)
	part := l.set.partOf(t, f.Open)
	ch := &Channel{link: l, id: f.Channel, tenant: t, part: part, shard: l.set.shardOf(part)}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.closed {
		return nil, ErrClosed
	}
	l.mu.channels[f.Channel] = ch
	return ch, nil
}

// tellLoad says how overloaded the broker is.
func (l *Link) tellLoad(level load.Level) {
	l.tell(link.DownFrame{Kind: link.DownLoad, Load: level})
}

// tell says something that is about no channel.
func (l *Link) tell(f link.DownFrame) {
	if l.closed() {
		return
	}
	l.gw.Receive(&link.Down{Frames: []link.DownFrame{f}})
	l.gw.Flush()
}

func (l *Link) forget(ch *Channel) {
	l.mu.Lock()
	if l.mu.channels[ch.id] == ch {
		delete(l.mu.channels, ch.id)
	}
	l.mu.Unlock()
}

// Close implements link.Broker: every channel is lost.
func (l *Link) Close() error {
	l.mu.Lock()
	if l.mu.closed {
		l.mu.Unlock()
		return nil
	}
	l.mu.closed = true
	chs := l.mu.channels
	l.mu.channels = nil
	l.mu.Unlock()
	l.set.links.Add(-1)
	l.set.mu.Lock()
	delete(l.set.mu.links, l)
	l.set.mu.Unlock()
	for _, ch := range chs {
		ch.shard.postFrames([]*Channel{ch}, []link.UpFrame{{Kind: link.UpClose, Close: &link.Close{Cause: link.CloseLost}}}, nil)
	}
	for _, s := range l.set.shards {
		// Behind the closes: nothing is told to it any more.
		s.post(item{kind: itemFence, call: func() { s.forgetLink(l) }}, nil)
	}
	return nil
}

func (l *Link) closed() bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.mu.closed
}
