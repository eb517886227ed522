// SPDX-License-Identifier: Apache-2.0

package loop

import (
	"context"
	"encoding/binary"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manormq/manor/infra/fair"
)

const (
	// events is how many are taken from the kernel at once.
	events = 1024
	// batch and batchTime bound a batch of calls of handlers. After it the caller's
	// hook runs, so that they also bound for how long what was read waits to be
	// written, and what has come meanwhile to be seen. Where there was one owner only
	// for sharedTime, aloneTime is the bound: larger batches cost less.
	batch      = 128
	batchTime  = 300 * time.Microsecond
	aloneTime  = 2 * time.Millisecond
	sharedTime = time.Second
	// quantum is for how long the sources of one owner are served while those of
	// another wait. No call counts for more than mostCharged: the processor may
	// have been taken away meanwhile.
	quantum     = 250 * time.Microsecond
	mostCharged = time.Millisecond
	// contended is what is read at once where there are several owners: a hundred
	// small messages, which take a part of batchTime.
	contended = 4 << 10
)

// Loop is one epoll instance and the goroutine of Run. All methods but Buffer
// and Pending may be called concurrently.
type Loop struct {
	ep     *os.File // waited for by the runtime's own poller
	raw    syscall.RawConn
	fd     int
	begin  func()
	end    func() (more bool)
	buffer []byte

	mu      sync.Mutex
	sources []*Source         // guarded by mu; by slot, nil if free
	free    []int32           // guarded by mu
	woken   []*Source         // guarded by mu
	again   bool              // guarded by mu; there is to be another batch
	closed  bool              // guarded by mu
	owners  map[string]*owner // guarded by mu

	waker    int         // an eventfd
	sleeping atomic.Bool // Run is, or is about to be, waiting
	count    atomic.Int64
	calls    Calls

	// Of the goroutine of Run.
	events [events]unix.EpollEvent
	ready  [events]*Source
	n      int
	werr   error
	taken  []*Source
	fair   fair.Queue[*Source]
	shared time.Time // when several owners were seen last
	// several says that this was less than sharedTime before the batch.
	several bool
	// nobody's sources are those without a name. They take turns with the others, and
	// are not one of several: connections that come and go must not make the batches of
	// all others small.
	nobody owner
	// more says that there is something to do besides what comes.
	more bool
}

// owner is whose sources take turns with those of others, by the time that their
// handlers take: a byte that goes to many costs more than one that goes to none.
type owner struct {
	flow    fair.Flow[*Source]
	sources int // guarded by Loop.mu
}

// New returns a Loop that calls begin before and end after each batch of
// events, on its goroutine. If end reports that it has more to do, another batch
// follows at once, with the events that are there then or with none.
func New(begin func(), end func() (more bool)) (*Loop, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	waker, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("eventfd", err)
	}
	l := &Loop{fd: fd, waker: waker, begin: begin, end: end, buffer: make([]byte, bufferSize), owners: map[string]*owner{}, fair: fair.Queue[*Source]{Quantum: int64(quantum)}}
	// The waker's slot is -1. It is edge triggered, so that it need not be read.
	err = unix.EpollCtl(fd, unix.EPOLL_CTL_ADD, waker, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: -1})
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err == nil {
		l.ep = os.NewFile(uintptr(fd), "epoll")
		l.raw, err = l.ep.SyscallConn()
	}
	if err != nil {
		_ = unix.Close(fd)
		_ = unix.Close(waker)
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	return l, nil
}

// Buffer is memory that a handler may use until it returns. It is smaller where
// there are several owners, since a handler is not interrupted.
func (l *Loop) Buffer() []byte {
	if l.several {
		return l.buffer[:contended]
	}
	return l.buffer
}

// Pending reports whether the loop goes on at once after this batch. It is for the
// hooks.
func (l *Loop) Pending() bool { return l.fair.Len() > 0 }

// Len is how many descriptors are watched.
func (l *Loop) Len() int { return int(l.count.Load()) }

// Calls are counted for ever.
func (l *Loop) Calls() *Calls { return &l.calls }

// Add watches fd, which must be in non-blocking mode, for h. Bytes to read are
// wanted from the start. While there is more to do than the loop can, the owners
// of sources, by name, are served for equal times; those without a name are one.
func (l *Loop) Add(fd int, h Handler, name string) (*Source, error) {
	s := &Source{loop: l, h: h, fd: fd, events: unix.EPOLLIN}
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil, os.ErrClosed
	}
	if n := len(l.free); n > 0 {
		s.slot = l.free[n-1]
		l.free = l.free[:n-1]
		l.sources[s.slot] = s
	} else {
		s.slot = int32(len(l.sources))
		l.sources = append(l.sources, s)
	}
	l.joinOwner(s, name)
	l.mu.Unlock()
	l.count.Add(1)
	ev := unix.EpollEvent{Events: s.events, Fd: s.slot}
	l.calls.Controls.Add(1)
	if err := unix.EpollCtl(l.fd, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		l.forget(s)
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	return s, nil
}

// Again has another batch follow, as if end had reported that it has more to do.
func (l *Loop) Again() {
	l.mu.Lock()
	first := !l.again
	l.again = true
	l.mu.Unlock()
	if first && l.sleeping.Load() {
		l.wake()
	}
}

func (l *Loop) wake() {
	// Nobody reads the counter, since each write is an edge. It is full, and would
	// wake nobody, after 2^64 of these.
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed { // else its descriptor may be another's
		_, _ = Write(l.waker, one[:])
	}
}

func (l *Loop) forget(s *Source) {
	l.mu.Lock()
	l.sources[s.slot] = nil
	l.free = append(l.free, s.slot)
	l.leaveOwner(s)
	l.mu.Unlock()
	l.count.Add(-1)
}

func (l *Loop) joinOwner(s *Source, name string) {
	s.name, s.owner = name, l.owners[name]
	if name == "" {
		s.owner = &l.nobody
	}
	if s.owner == nil {
		s.owner = &owner{}
		l.owners[name] = s.owner
	}
	s.owner.sources++
}

func (l *Loop) leaveOwner(s *Source) {
	if s.owner.sources--; s.owner.sources == 0 {
		delete(l.owners, s.name)
	}
}

// Run waits and calls until ctx is done. It must be called once. Descriptors
// that are watched then are the caller's to close.
func (l *Loop) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = l.ep.SetReadDeadline(time.Now()) })
	defer stop()
	defer l.close()
	var yield Yield
	defer yield.Close()
	for ctx.Err() == nil {
		if err := l.wait(); err != nil {
			if ctx.Err() != nil {
				break
			}
			return err
		}
		more := l.turn()
		if l.more = more || l.fair.Len() > 0; l.more {
			// Who never waits would have the processor for 10 ms at a time, while
			// others, of its own process, wait for it.
			yield.Now()
		}
	}
	return nil
}

func (l *Loop) close() {
	l.mu.Lock()
	l.closed = true
	_ = unix.Close(l.waker)
	l.mu.Unlock()
	_ = l.ep.Close()
}

// wait returns when there are events or somebody was woken. It looks first and
// sleeps only then: under load the kernel has something already.
func (l *Loop) wait() error {
	l.sleeping.Store(true)
	defer l.sleeping.Store(false)
	l.mu.Lock()
	busy := len(l.woken) > 0 || l.again || l.more
	l.again = false
	l.mu.Unlock()
	err := l.raw.Read(func(fd uintptr) bool {
		l.calls.Polls.Add(1)
		l.n, l.werr = poll(int(fd), l.events[:])
		return l.n > 0 || l.werr != nil || busy
	})
	if err == nil {
		err = l.werr
	}
	return err
}

// turn calls the handlers of one batch, and reports whether the hook wants another.
func (l *Loop) turn() (more bool) {
	l.begin()
	l.gather()
	start := time.Now()
	before, most, fresh := time.Duration(0), aloneTime, false
	flows := l.fair.Flows()
	if l.nobody.flow.Busy() {
		flows--
	}
	if flows > 1 {
		l.shared, fresh = start, l.fair.Fresh()
	}
	if l.several = start.Sub(l.shared) < sharedTime; l.several {
		most = batchTime
	}
	for range batch {
		s, flow, ok := l.fair.Next()
		if !ok {
			break
		}
		s.listed = false
		s.serve()
		now := time.Since(start)
		l.fair.Charge(flow, int64(min(now-before, mostCharged)))
		if before = now; now > most {
			break
		}
		if fresh && !l.fair.Fresh() {
			break // what is for those that rarely have something need not wait for the others
		}
	}
	return l.end()
}

// gather lists the sources that have something to do.
func (l *Loop) gather() {
	l.mu.Lock()
	for i := range l.n {
		l.ready[i] = nil
		if slot := l.events[i].Fd; slot >= 0 {
			l.ready[i] = l.sources[slot]
		}
	}
	l.taken, l.woken = l.woken, l.taken[:0]
	for _, s := range l.taken {
		s.queued = false
	}
	l.mu.Unlock()
	for i := range l.n {
		s := l.ready[i]
		if s == nil {
			continue
		}
		l.ready[i] = nil
		ev := l.events[i].Events
		if ev&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLERR|unix.EPOLLHUP) != 0 {
			s.readable = true
			l.list(s)
		}
		if ev&(unix.EPOLLOUT|unix.EPOLLERR|unix.EPOLLHUP) != 0 {
			s.writable = true
			l.list(s)
		}
	}
	for i, s := range l.taken {
		l.taken[i] = nil
		s.woke = true
		l.list(s)
	}
}

func (l *Loop) list(s *Source) {
	if !s.listed {
		s.listed = true
		l.fair.Push(&s.owner.flow, s)
	}
}
