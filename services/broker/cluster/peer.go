// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/manormq/manor/infra/fair"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/wire"
)

// The ways in which something is not sent.
var (
	// ErrDown says that there is no link to the broker now.
	ErrDown = errors.New("cluster: no link to the broker")
	// ErrFull says that so much waits for the broker that no more is taken of Tell,
	// or at QoS 0.
	ErrFull = errors.New("cluster: too much waits for the broker")
	// ErrLost says that a link was lost before an answer came.
	ErrLost = errors.New("cluster: the link was lost before there was an answer")
)

const (
	// laneQuantum is how many bytes a tenant sends in its turn.
	laneQuantum = 32 << 10
	// sendMost is how many bytes are encoded at once: what is for a tenant that
	// rarely has something waits for no more than that and what the kernel has.
	sendMost = 256 << 10
	// laneMost bounds what waits of a tenant, and peerMost of all of them, before
	// QoS 0 is refused, in bytes.
	laneMost = 4 << 20
	peerMost = 32 << 20
	// tellMost bounds what waits of Tell, but for one of any size, in bytes.
	tellMost = 16 << 20
	// keepLanes is how many lanes a peer keeps while nothing waits in them.
	keepLanes = 1024
)

// request is a frame that waits to be sent, with the lane in which it does.
type request struct {
	frame *frame
	lane  *lane
	size  int
	// lossy says that no answer is wanted.
	lossy bool
}

// frame is an encoded frame in memory that is used again.
type frame struct{ b []byte }

var frames = sync.Pool{New: func() any { return new(frame) }}

// maxPooledFrame is the largest memory that is kept, in bytes.
const maxPooledFrame = 64 << 10

func (f *frame) free() {
	if cap(f.b) <= maxPooledFrame {
		frames.Put(f)
	}
}

// lane is what waits of one tenant.
type lane struct {
	flow  fair.Flow[request]
	bytes int
}

// peer is the sending end of what goes to one broker. Its methods may be called
// concurrently.
type peer struct {
	mu sync.Mutex
	// All below is guarded by mu.
	conn  *wire.Conn // nil while there is no link
	id    LinkID     // of conn, or of the last one
	lanes map[string]*lane
	queue fair.Queue[request]
	told  []byte // frames of Tell
	tells int    // of them
	bytes int    // that wait in lanes
	// writing says that conn has something that Written will tell of.
	writing bool
	// waiting are the requests that have no answer, also those that were not sent.
	waiting map[uint32]func(Answer)
	last    uint32
	stats   *Stats
}

func newPeer(stats *Stats) *peer {
	return &peer{
		stats: stats,
		lanes: make(map[string]*lane), waiting: make(map[uint32]func(Answer)),
		queue: fair.Queue[request]{Quantum: laneQuantum},
	}
}

// enqueue leaves a copy of e to be sent. done, if any, is called once, with what
// became of it, from a goroutine of the link or, if that is lost, of whoever notices;
// never from within enqueue. over and what is returned are as for Mesh.Enqueue.
func (p *peer) enqueue(e *Enqueue, over LinkID, done func(Answer)) (LinkID, error) {
	size := e.Size()
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.conn == nil:
		return NoLink, ErrDown
	case over != AnyLink && over != p.id:
		return NoLink, ErrLost
	}
	l := p.laneLocked(e.Tenant)
	if e.Message.QoS == mqtt.AtMostOnce && done == nil && (l.bytes+size > laneMost || p.bytes+size > peerMost) {
		p.stats.Full.Add(1)
		p.stats.Dropped.Add(uint64(size))
		return NoLink, ErrFull
	}
	f := frames.Get().(*frame)
	f.b = appendEnqueue(f.b[:0], p.numberLocked(done), e)
	p.pushLocked(l, f, size, done == nil)
	p.stats.Enqueued.Add(1)
	_ = p.sendLocked() // where the link has ended, down answers
	return p.id, nil
}

func (p *peer) pushLocked(l *lane, f *frame, size int, lossy bool) {
	l.bytes += size
	p.bytes += size
	p.queue.Push(&l.flow, request{frame: f, lane: l, size: size, lossy: lossy})
}

// ask leaves a question about a tenant to be sent; done is as for enqueue.
func (p *peer) ask(tenant string, b []byte, done func(Answer)) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn == nil {
		return ErrDown
	}
	f := frames.Get().(*frame)
	f.b = appendAsk(f.b[:0], wireAsk, p.numberLocked(done), b)
	p.pushLocked(p.laneLocked(tenant), f, enqueueOverhead+len(b), false)
	_ = p.sendLocked() // where the link has ended, down answers
	return nil
}

func (p *peer) laneLocked(tenant string) *lane {
	l := p.lanes[tenant]
	if l == nil {
		l = &lane{}
		p.lanes[tenant] = l
	}
	return l
}

// tell leaves b to be sent before all that waits in lanes.
func (p *peer) tell(s Stream, b []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn == nil {
		return ErrDown
	}
	if len(p.told) > 0 && len(p.told)+len(b) > tellMost {
		p.stats.Full.Add(1)
		return ErrFull
	}
	p.told = appendTell(p.told, s, b)
	p.tells++
	return p.sendLocked()
}

// linked reports whether there is a link.
func (p *peer) linked() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.conn != nil
}

// backlog is how many bytes wait.
func (p *peer) backlog() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bytes + len(p.told)
}

// written is wire.Config.Written: more may go to the kernel.
func (p *peer) written() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn != nil && p.conn.Pending() == 0 {
		p.writing = false
		_ = p.sendLocked() // of a link that has ended, Run tells
	}
}

// maxFrames is how many frames a batch has at most.
const maxFrames = 1<<16 - 1

// sendLocked gives the link its next batch, unless it has one that is not written:
// so what waits does so in lanes.
func (p *peer) sendLocked() error {
	if p.writing || p.tells == 0 && p.queue.Len() == 0 {
		return nil
	}
	err := p.conn.Append(func(dst []byte) (out []byte, count int) {
		if p.tells > 0 && p.tells <= maxFrames {
			dst, count = append(dst, p.told...), p.tells
			p.told, p.tells = p.told[:0], 0
			if cap(p.told) > sendMost {
				p.told = nil
			}
		}
		for begin := len(dst); len(dst)-begin < sendMost && count < maxFrames; count++ {
			r, f, ok := p.queue.Next()
			if !ok {
				if len(p.lanes) > keepLanes {
					clear(p.lanes) // tenants come and go, and the queue has none of these
				}
				break
			}
			p.queue.Charge(f, int64(r.size))
			p.bytes -= r.size
			r.lane.bytes -= r.size
			dst = append(dst, r.frame.b...)
			r.frame.free()
		}
		return dst, count
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDown, err)
	}
	p.writing = true
	p.conn.Flush()
	return nil
}

// numberLocked gives a request a number for its answer, 0 if none is wanted.
func (p *peer) numberLocked(done func(Answer)) uint32 {
	if done == nil {
		return 0
	}
	for {
		if p.last++; p.last != 0 && p.waiting[p.last] == nil {
			p.waiting[p.last] = done
			return p.last
		}
	}
}

// answered takes an answer that came.
func (p *peer) answered(id uint32, a Answer) error {
	p.mu.Lock()
	done := p.waiting[id]
	delete(p.waiting, id)
	p.mu.Unlock()
	if done == nil {
		return fmt.Errorf("%w: an answer to %d, which was not asked", wire.ErrMalformed, id)
	}
	done(a)
	return nil
}

// up has what follows sent over conn, which is that link.
func (p *peer) up(conn *wire.Conn, id LinkID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conn, p.id, p.writing = conn, id, false
}

// down forgets the link, and all that waited for it: each request that wanted an
// answer gets ErrLost.
func (p *peer) down() {
	p.mu.Lock()
	p.conn = nil
	var lost []func(Answer)
	// In the order in which they were sent, so that they are sent again in that.
	for _, id := range slices.SortedFunc(maps.Keys(p.waiting), func(a, b uint32) int { return cmp.Compare(a-p.last-1, b-p.last-1) }) {
		lost = append(lost, p.waiting[id])
	}
	clear(p.waiting)
	for {
		r, _, ok := p.queue.Next()
		if !ok {
			break
		}
		if r.lossy {
			p.stats.Lost.Add(1)
			p.stats.Dropped.Add(uint64(r.size))
		}
		r.frame.free()
	}
	clear(p.lanes)
	p.told, p.tells, p.bytes = nil, 0, 0
	p.mu.Unlock()
	for _, done := range lost {
		done(Answer{Err: ErrLost})
	}
}
