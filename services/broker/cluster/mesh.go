// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/manormq/manor/infra/wire"
)

// Receiver is the broker behind a Mesh. Its methods are called concurrently, for
// one peer from one goroutine, and must not wait: what that peer sends next is
// behind them.
type Receiver interface {
	// Enqueue delivers what another broker sent. The Message's bytes and the slices
	// of e are valid until it returns. answer is nil if nobody waits; else it is
	// called once, later or within, by any goroutine.
	Enqueue(from string, e *Enqueue, answer func(Answer))
	// Batched says that what a peer sent at once has all been handed over.
	Batched(from string)
	// Told takes bytes that another broker told; they are valid until it returns.
	Told(from string, s Stream, b []byte)
	// Asked answers a question of another broker by reply, which is called once, later
	// or within, by any goroutine. b is valid until Asked returns.
	Asked(from string, b []byte, reply func([]byte))
	// Linked says that what is sent to a broker reaches it, or does not any more.
	// Requests that were lost with the link have their answers before.
	Linked(to string, up bool)
}

// Config is what a Mesh is made of.
type Config struct {
	// Node is this broker's name, as its certificate has it.
	Node string
	// TLS is for both ends; wire.TLS makes one. Without it there is none, for tests.
	TLS      *tls.Config
	Receiver Receiver
	Log      *slog.Logger
	// KeepAlive is as in wire.Config.
	KeepAlive time.Duration
	// Compress says whether what is sent to a broker is compressed where it gets smaller,
	// when a link to or from it begins; nil is never.
	Compress func(name string) bool
	// Versions are those that this broker speaks: Versions of the package by default.
	Versions wire.Versions
}

// VersionCourse is the version from which on brokers that see to a tenant that moves have it
// decided whether it goes on (shard.Course).
const VersionCourse = 4

// VersionInside is the version from which on brokers read deliveries that hold their
// message (queue.Queue.Keep).
const VersionInside = 3

// VersionTail is the version from which on replicas know partition.Fetch and
// partition.Tail.
const VersionTail = 2

// Versions are the versions of what brokers say to each other that this software speaks:
// of the frames here, and of what is in them for metadata and replicas. A release speaks
// what the one before it does, so that brokers can be updated one at a time.
var Versions = wire.Versions{Min: 1, Max: VersionCourse}

// Stats are counted for ever.
type Stats struct {
	// Enqueued were taken to be sent, Full refused, Lost taken at QoS 0 and not sent
	// before a link was lost. Dropped are the bytes of those that were refused or lost.
	Enqueued, Full, Lost, Dropped atomic.Uint64
}

// Mesh are the links of one broker to the others. Its methods may be called
// concurrently.
type Mesh struct {
	config Config
	stats  Stats
	links  atomic.Uint64 // that there have been
	begun  time.Time     // Run

	mu sync.Mutex
	// All below is guarded by mu.
	peers map[string]*dialed
	// leaving are the links that end, by name.
	leaving map[string]chan struct{}
	// accepted are the links that others opened, with what is closed when their last frame
	// was handed over.
	accepted map[*wire.Conn]chan struct{}
	// past is the traffic of links that have ended, told what Traffic returned last.
	past, told traffic
	ctx        context.Context // of Run, nil before
	wg         sync.WaitGroup
}

// dialed is a broker that the Mesh keeps a link to.
type dialed struct {
	*peer
	addr   string
	cancel context.CancelFunc // nil before Run
	// ended is closed when keep has returned; after is ended of the one before it, of
	// the same name, nil without one.
	ended, after chan struct{}
}

// New makes a Mesh without peers.
func New(c Config) *Mesh {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Compress == nil {
		c.Compress = func(string) bool { return false } // but it takes what others compress
	}
	if c.Versions == (wire.Versions{}) {
		c.Versions = Versions
	}
	return &Mesh{config: c, peers: make(map[string]*dialed), leaving: make(map[string]chan struct{}), accepted: make(map[*wire.Conn]chan struct{})}
}

// Stats are the counters.
func (m *Mesh) Stats() *Stats { return &m.stats }

// SetPeers says which other brokers there are, by name, and at which "host:port"
// each accepts links. Links to and from those that are no longer there end; one at
// another address is dialed there. Links are accepted from these only.
func (m *Mesh) SetPeers(addrs map[string]string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, d := range m.peers {
		if addrs[name] == d.addr {
			continue
		}
		delete(m.peers, name)
		if d.cancel != nil {
			d.cancel()
			m.leaving[name] = d.ended
		}
	}
	for name, addr := range addrs {
		if m.peers[name] == nil && name != m.config.Node {
			d := &dialed{peer: newPeer(&m.stats), addr: addr, ended: make(chan struct{}), after: m.leaving[name]}
			delete(m.leaving, name)
			m.peers[name] = d
			m.beginLocked(name, d)
		}
	}
	for conn := range m.accepted {
		if m.peers[conn.Peer()] == nil {
			_ = conn.Close()
		}
	}
}

func (m *Mesh) beginLocked(name string, d *dialed) {
	if m.ctx == nil || m.ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithCancel(m.ctx)
	d.cancel = cancel
	m.wg.Go(func() { m.keep(ctx, name, d) })
}

// LinkID is a link to another broker; the next one to the same broker has another.
type LinkID uint64

const (
	// AnyLink is whatever link there is.
	AnyLink LinkID = 0
	// NoLink is one that there never is.
	NoLink = ^AnyLink
)

// Enqueue has a copy of e sent to a broker over a link, and returns that: what is sent over the
// same one arrives in its order. done, if not nil, is called once with
// the answer, never from within. Without done what is lost with the link is counted
// only. The error is ErrDown, ErrLost if there is another link than over by now, or ErrFull
// for an e at QoS 0 without done; nothing is sent then and done is not called.
func (m *Mesh) Enqueue(to string, e *Enqueue, over LinkID, done func(Answer)) (LinkID, error) {
	p, err := m.peer(to)
	if err != nil {
		return NoLink, err
	}
	return p.enqueue(e, over, done)
}

// Tell has b sent to a broker, before what waits of Enqueue and behind what was told
// before. It is lost with the link. The error is ErrDown or ErrFull.
func (m *Mesh) Tell(to string, s Stream, b []byte) error {
	p, err := m.peer(to)
	if err != nil {
		return err
	}
	return p.tell(s, b)
}

// Ask has another broker answer a question about a tenant, which is not changed
// afterwards. done is called once with an Answer that has the Body or an Err, never
// from within. The error is ErrDown; done is not called then.
func (m *Mesh) Ask(to, tenant string, b []byte, done func(Answer)) error {
	p, err := m.peer(to)
	if err != nil {
		return err
	}
	return p.ask(tenant, b, done)
}

// Voice sends on one stream, to whoever hears it: what is lost is said again by
// those who speak. It is a Transport of broker/metadata.
type Voice struct {
	Mesh   *Mesh
	Stream Stream
}

// Peers are the brokers to which there is a link now.
func (v Voice) Peers() (names []string) {
	v.Mesh.mu.Lock()
	defer v.Mesh.mu.Unlock()
	for name, d := range v.Mesh.peers {
		if d.linked() {
			names = append(names, name)
		}
	}
	return names
}

// Send sends b, or drops it if that is not possible at once.
func (v Voice) Send(to string, b []byte) { _ = v.Mesh.Tell(to, v.Stream, b) }

// Version is the version that this broker speaks with another, 0 without a link.
func (m *Mesh) Version(to string) uint8 {
	p, err := m.peer(to)
	if err != nil {
		return 0
	}
	if conn := p.link(); conn != nil {
		return conn.Version()
	}
	return 0
}

// Backlog is how many bytes wait for a broker.
func (m *Mesh) Backlog(to string) int {
	p, err := m.peer(to)
	if err != nil {
		return 0
	}
	return p.backlog()
}

func (m *Mesh) peer(name string) (*peer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if d := m.peers[name]; d != nil {
		return d.peer, nil
	}
	return nil, fmt.Errorf("%w: %q is not known", ErrDown, name)
}

// Run keeps the links, and accepts those of the others on ln, which it closes,
// until ctx is done. It is called once.
func (m *Mesh) Run(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m.begun = time.Now()
	m.mu.Lock()
	m.ctx = ctx
	for name, d := range m.peers {
		m.beginLocked(name, d)
	}
	m.mu.Unlock()
	err := m.serve(ctx, ln)
	cancel()
	m.wg.Wait()
	return err
}

// The pauses between attempts to dial a broker, and how long one may take.
const (
	pauseFirst  = 100 * time.Millisecond
	pauseMost   = 5 * time.Second
	dialTimeout = 10 * time.Second
	// acquaint is for how long a broker that was just started, or has just heard of another, takes
	// it for no warning yet that a link is refused: news takes a moment to everybody.
	acquaint = 3 * time.Second
)

// keep dials a broker again and again, until ctx is done.
func (m *Mesh) keep(ctx context.Context, name string, d *dialed) {
	defer close(d.ended)
	if d.after != nil {
		<-d.after
	}
	pause, met := pauseFirst, time.Now()
	for ctx.Err() == nil {
		begun := time.Now()
		err := m.link(ctx, name, d)
		if ctx.Err() != nil {
			return
		}
		if time.Since(begun) > pauseMost {
			pause = pauseFirst // it was up for a while
		}
		level := slog.LevelWarn
		if time.Since(met) < acquaint {
			level = slog.LevelInfo
		}
		m.config.Log.Log(ctx, level, "no link to a broker", slog.String("broker", name), slog.String("address", d.addr), slog.Any("error", err), slog.Duration("retry_in", pause))
		// Half of the pause is random, so that brokers do not come at once.
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause/2 + rand.N(pause/2+1)):
		}
		pause = min(2*pause, pauseMost)
	}
}

// link is one link to a broker, from dialing to its end.
func (m *Mesh) link(ctx context.Context, name string, d *dialed) error {
	dctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var dialer net.Dialer
	nc, err := dialer.DialContext(dctx, "tcp", d.addr)
	if err != nil {
		return err
	}
	if m.config.TLS != nil {
		config := m.config.TLS.Clone()
		config.ServerName = name // at whatever address it is
		nc = tls.Client(nc, config)
	}
	config := m.wire()
	config.Written = d.written
	conn, err := wire.New(dctx, nc, config)
	if err != nil {
		return err
	}
	if conn.Peer() != name {
		_ = conn.Close()
		return fmt.Errorf("the broker at %s is %q, expected %q", d.addr, conn.Peer(), name)
	}
	m.config.Log.Info("link to a broker is up", slog.String("broker", name), slog.String("address", d.addr), slog.Int("version", int(conn.Version())))
	d.up(conn, LinkID(m.links.Add(1)))
	m.config.Receiver.Linked(name, true)
	err = conn.Run(ctx, wire.Receiver{Batch: func(frames []byte, count int) error {
		return wire.EachFrame(frames, count, func(f wire.Frame) error {
			if f.Kind == wireReply {
				return d.answered(f.ID, Answer{Body: string(f.Body)})
			}
			if f.Kind != wireAnswer {
				return f.Malformed("is no answer")
			}
			a, err := readAnswer(f)
			if err != nil {
				return err
			}
			return d.answered(f.ID, a)
		})
	}})
	d.down()
	m.ended(conn)
	m.config.Receiver.Linked(name, false)
	return err
}

func (m *Mesh) wire() wire.Config {
	return wire.Config{Node: m.config.Node, KeepAlive: m.config.KeepAlive, Versions: m.config.Versions, Compress: m.config.Compress}
}

// serve accepts links until ctx is done.
func (m *Mesh) serve(ctx context.Context, ln net.Listener) error {
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	for {
		nc, err := ln.Accept()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil:
			// Out of file descriptors, most likely: others will end.
			m.config.Log.Error("accept a broker's link", slog.Any("error", err))
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		m.wg.Go(func() { m.accept(ctx, nc) })
	}
}

// accept is the life of a link that another broker opened.
func (m *Mesh) accept(ctx context.Context, nc net.Conn) {
	remote := nc.RemoteAddr()
	if m.config.TLS != nil {
		nc = tls.Server(nc, m.config.TLS)
	}
	conn, err := wire.New(ctx, nc, m.wire())
	if err != nil {
		level := slog.LevelWarn
		if wire.Silent(err) {
			level = slog.LevelDebug
		}
		m.config.Log.Log(ctx, level, "a broker's link is refused", slog.Any("peer", remote), slog.Any("error", err))
		return
	}
	from := conn.Peer()
	before, ok := m.admit(conn)
	if !ok {
		_ = conn.Close()
		level := slog.LevelWarn
		if time.Since(m.begun) < acquaint {
			level = slog.LevelInfo
		}
		m.config.Log.Log(ctx, level, "a broker's link is refused", slog.Any("peer", remote), slog.String("broker", from), slog.String("error", "it is no member of this cluster"))
		return
	}
	defer m.forget(conn)
	// A broker has one link to another: what comes over a new one is behind all of the old.
	for _, ended := range before {
		<-ended
	}
	m.config.Log.Info("a broker's link is open", slog.String("broker", from), slog.Any("peer", remote))
	var e Enqueue
	err = conn.Run(ctx, wire.Receiver{Batch: func(frames []byte, count int) error {
		defer m.config.Receiver.Batched(from)
		return wire.EachFrame(frames, count, func(f wire.Frame) error {
			switch f.Kind {
			case wireEnqueue:
				if err := readEnqueue(f, &e); err != nil {
					return err
				}
				m.config.Receiver.Enqueue(from, &e, answerTo(conn, f.ID))
			case wireTell:
				if f.ID != 0 {
					return f.Malformed("has a number, but no answer")
				}
				m.config.Receiver.Told(from, Stream(f.Flags), f.Body)
			case wireAsk:
				if f.ID == 0 {
					return f.Malformed("has no number for its answer")
				}
				m.config.Receiver.Asked(from, f.Body, replyTo(conn, f.ID))
			default:
				return f.Malformed("unknown type")
			}
			return nil
		})
	}})
	m.config.Log.Info("a broker's link has ended", slog.String("broker", from), slog.Any("error", err))
}

// admit notes a link, if it is of a broker that there is, and closes the earlier ones of
// that: their ends are returned.
func (m *Mesh) admit(conn *wire.Conn) (before []chan struct{}, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.peers[conn.Peer()] == nil {
		return nil, false
	}
	for old, ended := range m.accepted {
		if old.Peer() == conn.Peer() {
			_ = old.Close()
			before = append(before, ended)
		}
	}
	m.accepted[conn] = make(chan struct{})
	return before, true
}

func (m *Mesh) forget(conn *wire.Conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	close(m.accepted[conn])
	delete(m.accepted, conn)
	m.past.add(conn)
}

// answerTo answers the request id, or nobody if that is 0.
func answerTo(conn *wire.Conn, id uint32) func(Answer) {
	if id == 0 {
		return nil
	}
	return func(a Answer) {
		// If it cannot be sent the link ends, and the other end takes the request
		// for lost.
		_ = conn.Append(func(dst []byte) ([]byte, int) { return appendAnswer(dst, id, a), 1 })
		conn.Flush()
	}
}

// replyTo answers the question id.
func replyTo(conn *wire.Conn, id uint32) func([]byte) {
	return func(b []byte) {
		_ = conn.Append(func(dst []byte) ([]byte, int) { return appendAsk(dst, wireReply, id, b), 1 }) // as in answerTo
		conn.Flush()
	}
}
