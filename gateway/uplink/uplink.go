// SPDX-License-Identifier: Apache-2.0

package uplink

import (
	"context"
	"errors"
	"hash/maphash"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/manormq/manor/infra/link"
)

// Dialer makes a link to a broker. In one process that is the broker's Attach,
// between processes the TCP transport of infra/link.
type Dialer interface {
	// Dial returns the broker's end of a new link whose other end is gw. ctx
	// bounds the dialling, not the life of the link.
	Dial(ctx context.Context, gw link.Gateway) (link.Broker, error)
}

// DialerFunc is a function that is a Dialer.
type DialerFunc func(ctx context.Context, gw link.Gateway) (link.Broker, error)

// Dial calls f.
func (f DialerFunc) Dial(ctx context.Context, gw link.Gateway) (link.Broker, error) {
	return f(ctx, gw)
}

// Handler hears of what comes over the links. What is said of link.Gateway
// holds for its methods.
type Handler[T any] interface {
	Receive(l *Link[T], b *link.Down)
	Flush()
	// FlushEarly is that of link.EarlyFlusher.
	FlushEarly()
	// Lost is called once for a link, after which no Receive of it follows.
	Lost(l *Link[T], err error)
}

// Link is one link and its channels. It is the link.Gateway that the broker
// holds.
type Link[T any] struct {
	Channels Table[T]

	broker link.Broker
	pool   *Pool[T]
	goaway atomic.Bool
	once   sync.Once
	gone   chan struct{}
	err    error // before gone is closed
}

// Send is that of link.Broker.
func (l *Link[T]) Send(b *link.Up) error { return l.broker.Send(b) }

// Post is that of link.Broker.
func (l *Link[T]) Post(b *link.Up) error { return l.broker.Post(b) }

// FlushUp is Flush of link.Broker.
func (l *Link[T]) FlushUp() { l.broker.Flush() }

// Pool is what the link belongs to.
func (l *Link[T]) Pool() *Pool[T] { return l.pool }

// Moves reports whether a connection can go on at the broker that has begun at another.
func (l *Link[T]) Moves() bool { return link.Takes(l.broker, link.FeatureMoves) }

// Cells reports whether the broker knows that tenants have partitions of their own.
func (l *Link[T]) Cells() bool { return link.Takes(l.broker, link.FeatureCells) }

// To is the name of the broker, empty if no table has it.
func (l *Link[T]) To() string { return l.pool.broker.Name }

// Receive implements link.Gateway.
func (l *Link[T]) Receive(b *link.Down) {
	for i := range b.Frames {
		switch f := &b.Frames[i]; f.Kind {
		case link.DownGoaway:
			l.goaway.Store(true)
		case link.DownTable:
			if tell := l.pool.tell; tell != nil {
				tell(f.Table)
			}
		default:
		}
	}
	l.pool.handler.Receive(l, b)
}

// Flush implements link.Gateway.
func (l *Link[T]) Flush() { l.pool.handler.Flush() }

// Features implements link.Featured.
func (l *Link[T]) Features() uint32 { return link.Features }

// FlushEarly implements link.EarlyFlusher.
func (l *Link[T]) FlushEarly() { l.pool.handler.FlushEarly() }

// Lost implements link.Gateway.
func (l *Link[T]) Lost(err error) {
	l.once.Do(func() {
		l.err = err
		close(l.gone)
	})
}

// Pool is the links to one broker.
type Pool[T any] struct {
	dialer  Dialer
	handler Handler[T]
	log     *slog.Logger
	links   []atomic.Pointer[Link[T]]
	seed    maphash.Seed

	// Of a pool of Brokers: who is at the other end, who hears of tables and of links
	// that are up, and the end of Run.
	broker link.TableBroker
	tell   func(*link.TableUpdate)
	up     func()
	cancel context.CancelFunc
	// retired: no channel is to be opened any more, and lost links stay lost.
	retired atomic.Bool
}

// The pauses between two attempts to dial.
const (
	pauseFirst = 100 * time.Millisecond
	pauseMost  = 5 * time.Second
	// shortLife is how long a link has to live so that the next attempt is made at
	// once when it is lost. A broker that refuses a gateway does so after the dial.
	shortLife   = 2 * time.Second
	dialTimeout = 10 * time.Second
)

// NewPool returns a Pool of n links, none of which is there before Run.
func NewPool[T any](n int, d Dialer, h Handler[T], log *slog.Logger) *Pool[T] {
	return &Pool[T]{dialer: d, handler: h, log: log, seed: maphash.MakeSeed(), links: make([]atomic.Pointer[Link[T]], max(n, 1))}
}

// Pick returns a link for a new channel of the session of that name; nil if there
// is none. While the links stay, a name has always the same one: what ends its
// channel then reaches the broker before what opens the next one.
func (p *Pool[T]) Pick(name string) *Link[T] {
	at := maphash.String(p.seed, name) % uint64(len(p.links))
	for i := range p.links {
		if l := p.links[(int(at)+i)%len(p.links)].Load(); l != nil && !l.goaway.Load() {
			return l
		}
	}
	return nil
}

// Opens reports whether a link takes new channels.
func (p *Pool[T]) Opens() bool {
	for i := range p.links {
		if l := p.links[i].Load(); l != nil && !l.goaway.Load() {
			return true
		}
	}
	return false
}

// FlushUp sends what waits for any of the links.
func (p *Pool[T]) FlushUp() {
	for i := range p.links {
		if l := p.links[i].Load(); l != nil {
			l.FlushUp()
		}
	}
}

// Up counts the links that are there.
func (p *Pool[T]) Up() int {
	n := 0
	for i := range p.links {
		if p.links[i].Load() != nil {
			n++
		}
	}
	return n
}

// end reports whether no link has a channel; none gets one after that.
func (p *Pool[T]) end() bool {
	ended := true
	for i := range p.links {
		if l := p.links[i].Load(); l != nil && !l.Channels.End() {
			ended = false
		}
	}
	return ended
}

// errRetired is why the links of a retired pool end.
var errRetired = errors.New("the link is not needed any more")

// Run keeps the links until ctx is done, then closes them.
func (p *Pool[T]) Run(ctx context.Context) {
	var wg sync.WaitGroup
	for i := range p.links {
		wg.Go(func() { p.keep(ctx, i) })
	}
	wg.Wait()
}

func (p *Pool[T]) keep(ctx context.Context, i int) {
	pause := pauseFirst
	for ctx.Err() == nil && !p.retired.Load() {
		l := &Link[T]{pool: p, gone: make(chan struct{})}
		dctx, cancel := context.WithTimeout(ctx, dialTimeout)
		b, err := p.dialer.Dial(dctx, l)
		cancel()
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			p.log.Warn("no link to the broker", "link", i, "error", err, "retry_in", pause)
			if pause = wait(ctx, pause); pause == 0 {
				return
			}
			continue
		}
		up := time.Now()
		l.broker = b
		p.links[i].Store(l)
		p.log.Info("link to the broker is up", "link", i)
		if p.up != nil {
			p.up()
		}
		select {
		case <-ctx.Done():
			p.links[i].Store(nil)
			if err := b.Close(); err != nil {
				p.log.Debug("close link", "error", err)
			}
			if p.retired.Load() { // else the gateway itself ends
				p.handler.Lost(l, errRetired)
			}
			return
		case <-l.gone:
			p.links[i].Store(nil)
			p.log.Warn("link to the broker is lost", "link", i, "error", l.err)
			p.handler.Lost(l, l.err)
			if time.Since(up) >= shortLife {
				pause = pauseFirst
			} else if pause = wait(ctx, pause); pause == 0 {
				return
			}
		}
	}
}

// wait waits before the next attempt and returns the pause before the one after it,
// or 0 if ctx is done. Half of it is random, so that gateways do not come at once.
func wait(ctx context.Context, pause time.Duration) time.Duration {
	if !sleep(ctx, pause/2+rand.N(pause/2+1)) {
		return 0
	}
	return min(2*pause, pauseMost)
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
