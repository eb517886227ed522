// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// HeaderSize is the size of a batch header in bytes:
//
//	length u32 | count u16 | flags u16
//
// length counts the bytes behind the header.
const HeaderSize = 8

// The flags of a batch. A batch with one of the first two has no frames.
const (
	flagPing uint16 = 1 << iota // body: 8 bytes, which the pong repeats
	flagPong
	// flagS2 is of a batch that has frames, compressed (compress.go).
	flagS2
)

// The ways in which a Conn ends.
var (
	// ErrClosed says that Close was called on this end.
	ErrClosed = errors.New("wire: connection closed here")
	// ErrMalformed says that the other end sent what is no batch.
	ErrMalformed = errors.New("wire: malformed batch")
	// ErrTooLarge says that a batch to send was larger than Config.MaxBatch.
	ErrTooLarge = errors.New("wire: batch too large")
	// ErrOverrun says that more is queued than Config.MaxPending.
	ErrOverrun = errors.New("wire: the other end does not take what is sent")
)

// Config is how a node speaks. A zero field has its default.
type Config struct {
	// Node is this node's name, 1 to 255 bytes.
	Node string
	// Versions are those of the frames that this node speaks; both ends use the highest
	// that both do. 1 by default.
	Versions Versions
	// Features are bits of what this node can do, of 24; both ends use those that
	// both have.
	Features uint32
	// Compress, if set, says that this node takes compressed batches, and for a node that
	// does so too whether it is sent some. It is called once, with the node's name.
	Compress func(node string) bool
	// MaxBatch is the largest batch that is accepted or sent, in bytes with its
	// header: 257 MiB by default, so that any MQTT packet fits.
	MaxBatch int
	// MaxPending is how many bytes may wait to be written before the
	// connection is given up: 1 GiB by default. What uses a Conn bounds itself
	// well below, by credit.
	MaxPending int
	// KeepAlive is how often a ping is sent: 5 s by default. An end that hears
	// nothing for three of them ends the connection.
	KeepAlive time.Duration
	// Direct, if set, is called when the preface has been exchanged: from then on
	// writes to the connection do not wait, and Flush writes itself instead of
	// waking a goroutine. What the connection keeps of them must be bounded.
	Direct func()
	// Written, if set, is called after each write, on the goroutine that writes: what
	// is gathered elsewhere may be queued now. It must not wait for the network.
	Written func()
	// Handshake is how long the preface, and TLS before it, may take: 10 s by
	// default.
	Handshake time.Duration
}

func (c Config) withDefaults() Config {
	set := func(field *int, value int) {
		if *field == 0 {
			*field = value
		}
	}
	set(&c.MaxBatch, 257<<20)
	set(&c.MaxPending, 1<<30)
	c.Versions = c.Versions.withDefaults()
	c.Features &^= featureS2
	if c.Compress != nil {
		c.Features |= featureS2
	}
	if c.KeepAlive == 0 {
		c.KeepAlive = 5 * time.Second
	}
	if c.Handshake == 0 {
		c.Handshake = 10 * time.Second
	}
	return c
}

// Conn is one connection between two nodes.
type Conn struct {
	config   Config
	nc       net.Conn
	r        *bufio.Reader
	peer     string
	features uint32
	version  uint8

	wake    chan struct{} // capacity 1: the writer has something to do
	direct  bool          // writes do not wait: Flush writes
	shrinks *shrinker     // nil if batches go as they are; guarded by writing
	writing sync.Mutex    // held from taking what is pending until it is written; before mu
	done    chan struct{} // closed with the first error
	rtt     atomic.Int64  // nanoseconds; 0 before the first pong
	sent    atomic.Uint64 // bytes
	heard   atomic.Uint64 // bytes
	started time.Time     // the zero of ping times

	mu      sync.Mutex
	pending []byte // guarded by mu: batches that no write has taken
	spare   []byte // guarded by mu: the other buffer, empty
	err     error  // guarded by mu: why the connection ended, nil while it lives
}

// New introduces this node to the other end of nc, which is ours from then on,
// and returns the connection. It gives up when ctx is done.
func New(ctx context.Context, nc net.Conn, config Config) (*Conn, error) {
	config = config.withDefaults()
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	r := bufio.NewReaderSize(nc, 64<<10)
	peer, version, features, err := introduce(nc, r, config)
	if err != nil {
		_ = nc.Close()
		return nil, errors.Join(ctx.Err(), err)
	}
	if config.Direct != nil {
		config.Direct()
	}
	c := &Conn{
		config: config, nc: nc, r: r, peer: peer, version: version, features: features &^ featureS2, direct: config.Direct != nil,
		wake: make(chan struct{}, 1), done: make(chan struct{}), started: time.Now(),
	}
	if features&featureS2 != 0 && config.Compress(peer) {
		c.shrinks = &shrinker{}
	}
	return c, nil
}

// Peer is the name of the node at the other end, as its certificate says if
// there is TLS.
func (c *Conn) Peer() string { return c.peer }

// Version is the version of the frames that both ends speak.
func (c *Conn) Version() uint8 { return c.version }

// Features are the bits that both ends have.
func (c *Conn) Features() uint32 { return c.features }

// RemoteAddr is the address of the other end.
func (c *Conn) RemoteAddr() net.Addr { return c.nc.RemoteAddr() }

// RoundTrip is how long the last ping took, 0 before there was one.
func (c *Conn) RoundTrip() time.Duration { return time.Duration(c.rtt.Load()) }

// Traffic is how many bytes this end has written and read, without TLS.
func (c *Conn) Traffic() (sent, heard uint64) { return c.sent.Load(), c.heard.Load() }

// Pending is how many bytes wait to be written.
func (c *Conn) Pending() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.pending)
}

// Append queues one batch, which frames appends to the buffer that it is given;
// it returns the buffer and how many frames there are. Append never waits for
// the network; nothing is written before Flush. A batch that cannot be queued
// ends the connection, so that none is ever missing between two others. Append
// may be called concurrently; frames runs under a lock and must not call c.
func (c *Conn) Append(frames func(dst []byte) (out []byte, count int)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	start := len(c.pending)
	out, count := frames(append(c.pending, make([]byte, HeaderSize)...))
	size := len(out) - start
	if size > c.config.MaxBatch || count > math.MaxUint16 {
		err := fmt.Errorf("%w: %d frames in %d bytes to send, at most %d in %d", ErrTooLarge, count, size, math.MaxUint16, c.config.MaxBatch)
		c.end(err)
		return err
	}
	if size == HeaderSize {
		c.pending = out[:start]
		return nil
	}
	putHeader(out[start:], size-HeaderSize, count, 0)
	c.pending = out
	if len(c.pending) > c.config.MaxPending {
		err := fmt.Errorf("%w: %d bytes wait", ErrOverrun, len(c.pending))
		c.end(err)
		return err
	}
	return nil
}

// Flush has what is queued written. It does not wait.
func (c *Conn) Flush() {
	if c.direct {
		c.mu.Lock()
		none := len(c.pending) == 0 // or somebody is writing it
		c.mu.Unlock()
		if !none {
			c.writePending()
		}
		return
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Close ends the connection. What is queued may be lost.
func (c *Conn) Close() error {
	c.fail(ErrClosed)
	return nil
}

// fail ends the connection with err, unless it has ended.
func (c *Conn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.end(err)
}

// end is fail for a caller that holds mu.
func (c *Conn) end(err error) {
	if c.err != nil {
		return
	}
	c.err = err
	c.pending, c.spare = nil, nil
	close(c.done)
	_ = c.nc.Close()
}

// Receiver takes what comes.
type Receiver struct {
	// Batch takes the frames of one batch and how many there are. The bytes
	// are valid until it returns. An error ends the connection.
	Batch func(frames []byte, count int) error
	// Idle, if set, is called after one or more calls of Batch, when no further
	// whole batch has been read from the network yet.
	Idle func()
}

// Run reads until the connection ends, and returns why: ErrClosed after Close
// of this end, ctx's error after ctx is done. The calls of receive come from
// one goroutine. Run is called once.
func (c *Conn) Run(ctx context.Context, receive Receiver) error {
	stop := context.AfterFunc(ctx, func() { c.fail(context.Cause(ctx)) })
	defer stop()
	var wg sync.WaitGroup
	wg.Go(c.write)
	wg.Go(c.keepAlive)
	c.fail(c.read(receive))
	wg.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// read hands over batches until one cannot be read.
func (c *Conn) read(receive Receiver) error {
	in := inbox{r: c.r}
	var plain []byte
	called := false
	for {
		if called && !in.ready() && receive.Idle != nil {
			receive.Idle()
			called = false
		}
		_ = c.nc.SetReadDeadline(time.Now().Add(3 * c.config.KeepAlive)) // the read says it better
		body, count, flags, err := in.next(c.config.MaxBatch)
		if err != nil {
			return fmt.Errorf("read from %s: %w", c.peer, err)
		}
		c.heard.Add(uint64(HeaderSize + len(body)))
		switch {
		case flags == 0:
			if err := receive.Batch(body, count); err != nil {
				return fmt.Errorf("batch from %s: %w", c.peer, err)
			}
			called = true
		case flags == flagS2 && c.config.Compress != nil:
			if plain, err = expand(plain, body); err != nil {
				return fmt.Errorf("batch from %s: %w", c.peer, err)
			}
			if err := receive.Batch(plain, count); err != nil {
				return fmt.Errorf("batch from %s: %w", c.peer, err)
			}
			called = true
		case flags == flagPing && len(body) == 8 && count == 0:
			c.control(flagPong, binary.BigEndian.Uint64(body))
		case flags == flagPong && len(body) == 8 && count == 0:
			c.rtt.Store(max(1, int64(time.Since(c.started))-int64(binary.BigEndian.Uint64(body))))
		default:
			return fmt.Errorf("batch from %s: %w: flags %#04x with %d frames in %d bytes", c.peer, ErrMalformed, flags, count, len(body))
		}
		in.release()
	}
}

// control queues a ping or a pong and has it written.
func (c *Conn) control(flag uint16, value uint64) {
	c.mu.Lock()
	if c.err == nil {
		start := len(c.pending)
		c.pending = append(c.pending, make([]byte, HeaderSize)...)
		c.pending = binary.BigEndian.AppendUint64(c.pending, value)
		putHeader(c.pending[start:], 8, 0, flag)
	}
	c.mu.Unlock()
	c.Flush()
}

// keepAlive pings until the connection ends.
func (c *Conn) keepAlive() {
	tick := time.NewTicker(c.config.KeepAlive)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			c.control(flagPing, uint64(time.Since(c.started)))
		case <-c.done:
			return
		}
	}
}

// keepBuffer is the largest buffer that is kept for the next batch, in bytes.
const keepBuffer = 1 << 20

// write writes what gathers until the connection ends.
func (c *Conn) write() {
	for {
		select {
		case <-c.wake:
		case <-c.done:
			return
		}
		c.writePending()
	}
}

// writePending writes what is pending, in the order in which it was queued.
func (c *Conn) writePending() {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.mu.Lock()
	out := c.pending
	c.pending, c.spare = c.spare, nil
	c.mu.Unlock()
	if len(out) == 0 {
		return
	}
	send := out
	if c.shrinks != nil {
		send = c.shrinks.shrink(out)
	}
	n, err := c.nc.Write(send)
	c.sent.Add(uint64(n))
	if err != nil {
		c.fail(fmt.Errorf("write to %s: %w", c.peer, err))
		return
	}
	if cap(out) <= keepBuffer {
		c.mu.Lock()
		c.spare = out[:0]
		c.mu.Unlock()
	}
	if c.config.Written != nil {
		c.config.Written()
	}
}

func putHeader(dst []byte, length, count int, flags uint16) {
	binary.BigEndian.PutUint32(dst, uint32(length))
	binary.BigEndian.PutUint16(dst[4:], uint16(count))
	binary.BigEndian.PutUint16(dst[6:], flags)
}
