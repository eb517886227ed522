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
)

// batch is how many events are taken from the kernel at once. After a batch the
// caller's hook runs, so that it also bounds for how long what was read waits to
// be written.
const batch = 128

// Loop is one epoll instance and the goroutine of Run. All methods but Buffer
// may be called concurrently.
type Loop struct {
	ep     *os.File // waited for by the runtime's own poller
	raw    syscall.RawConn
	fd     int
	begin  func()
	end    func()
	buffer []byte

	mu      sync.Mutex
	sources []*Source // guarded by mu; by slot, nil if free
	free    []int32   // guarded by mu
	woken   []*Source // guarded by mu
	closed  bool      // guarded by mu

	waker    int         // an eventfd
	sleeping atomic.Bool // Run is, or is about to be, waiting
	count    atomic.Int64
	calls    Calls

	// Of the goroutine of Run.
	events [batch]unix.EpollEvent
	ready  [batch]*Source
	n      int
	werr   error
	taken  []*Source
}

// New returns a Loop that calls begin before and end after each batch of
// events, on its goroutine.
func New(begin, end func()) (*Loop, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	waker, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("eventfd", err)
	}
	l := &Loop{fd: fd, waker: waker, begin: begin, end: end, buffer: make([]byte, bufferSize)}
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

// Buffer is memory that a handler may use until it returns.
func (l *Loop) Buffer() []byte { return l.buffer }

// Len is how many descriptors are watched.
func (l *Loop) Len() int { return int(l.count.Load()) }

// Calls are counted for ever.
func (l *Loop) Calls() *Calls { return &l.calls }

// Source is a descriptor that a Loop watches. Its methods may be called
// concurrently.
type Source struct {
	loop *Loop
	h    Handler
	fd   int
	slot int32

	mu     sync.Mutex
	events uint32 // guarded by mu; what is wanted
	gone   bool   // guarded by mu
	queued bool   // guarded by loop.mu; in loop.woken
}

// Add watches fd, which must be in non-blocking mode, for h. Bytes to read are
// wanted from the start.
func (l *Loop) Add(fd int, h Handler) (*Source, error) {
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
	l.mu.Unlock()
	l.count.Add(1)
	ev := unix.EpollEvent{Events: s.events, Fd: s.slot}
	if err := unix.EpollCtl(l.fd, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		l.forget(s)
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	return s, nil
}

// WantRead says whether Readable is to be called.
func (s *Source) WantRead(want bool) { s.want(unix.EPOLLIN, want) }

// WantWrite says whether Writable is to be called.
func (s *Source) WantWrite(want bool) { s.want(unix.EPOLLOUT, want) }

func (s *Source) want(event uint32, want bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	events := s.events | event
	if !want {
		events = s.events &^ event
	}
	if s.gone || events == s.events {
		return
	}
	s.events = events
	ev := unix.EpollEvent{Events: events, Fd: s.slot}
	// It fails for lack of kernel memory only; then the peer seems silent until
	// a timeout ends it.
	_ = unix.EpollCtl(s.loop.fd, unix.EPOLL_CTL_MOD, s.fd, &ev)
}

// Wake has Woken called soon. It does nothing after Remove.
func (s *Source) Wake() {
	l := s.loop
	l.mu.Lock()
	queued := s.queued
	if !queued {
		s.queued = true
		l.woken = append(l.woken, s)
	}
	l.mu.Unlock()
	if !queued && l.sleeping.Load() {
		l.wake()
	}
}

func (l *Loop) wake() {
	// Nobody reads the counter, since each write is an edge. It is full, and would
	// wake nobody, after 2^64 of these.
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	_, _ = Write(l.waker, one[:])
}

// Remove ends the watch; no method of the handler is called after it returned on
// the loop's goroutine. The descriptor is the caller's to close, afterwards.
func (s *Source) Remove() {
	s.mu.Lock()
	gone := s.gone
	s.gone = true
	if !gone {
		_ = unix.EpollCtl(s.loop.fd, unix.EPOLL_CTL_DEL, s.fd, nil)
	}
	s.mu.Unlock()
	if !gone {
		s.loop.forget(s)
	}
}

func (l *Loop) forget(s *Source) {
	l.mu.Lock()
	l.sources[s.slot] = nil
	l.free = append(l.free, s.slot)
	l.mu.Unlock()
	l.count.Add(-1)
}

func (s *Source) alive() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.gone
}

// Run waits and calls until ctx is done. It must be called once. Descriptors
// that are watched then are the caller's to close.
func (l *Loop) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = l.ep.SetReadDeadline(time.Now()) })
	defer stop()
	defer l.close()
	for ctx.Err() == nil {
		if err := l.wait(); err != nil {
			if ctx.Err() != nil {
				break
			}
			return err
		}
		l.turn()
	}
	return nil
}

func (l *Loop) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	_ = l.ep.Close()
	_ = unix.Close(l.waker)
}

// wait returns when there are events or somebody was woken. It looks first and
// sleeps only then: under load the kernel has something already.
func (l *Loop) wait() error {
	l.sleeping.Store(true)
	defer l.sleeping.Store(false)
	l.mu.Lock()
	woken := len(l.woken) > 0
	l.mu.Unlock()
	err := l.raw.Read(func(fd uintptr) bool {
		l.calls.Polls.Add(1)
		l.n, l.werr = poll(int(fd), l.events[:])
		return l.n > 0 || l.werr != nil || woken
	})
	if err == nil {
		err = l.werr
	}
	return err
}

// turn calls the handlers of one batch.
func (l *Loop) turn() {
	l.begin()
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
		if ev&(unix.EPOLLOUT|unix.EPOLLERR|unix.EPOLLHUP) != 0 && s.alive() {
			s.h.Writable(l)
		}
		if ev&(unix.EPOLLIN|unix.EPOLLERR|unix.EPOLLHUP) != 0 && s.alive() {
			s.h.Readable(l)
		}
	}
	for i, s := range l.taken {
		l.taken[i] = nil
		if s.alive() {
			s.h.Woken(l)
		}
	}
	l.end()
}
