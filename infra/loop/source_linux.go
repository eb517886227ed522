// SPDX-License-Identifier: Apache-2.0

package loop

import (
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Source is a descriptor that a Loop watches. Its methods may be called
// concurrently.
type Source struct {
	loop *Loop
	h    Handler
	fd   int
	slot int32

	owner *owner
	name  string // of owner
	// Of the loop's goroutine: what is to be called, and that it is in loop.fair.
	readable, writable, woke, listed bool

	mu     sync.Mutex
	events uint32 // guarded by mu; what is wanted
	gone   bool   // guarded by mu
	queued bool   // guarded by loop.mu; in loop.woken
}

// WantRead says whether Readable is to be called.
func (s *Source) WantRead(want bool) {
	if want {
		s.change(unix.EPOLLIN, unix.EPOLLRDHUP|unix.EPOLLET)
		return
	}
	s.change(0, unix.EPOLLIN|unix.EPOLLET)
}

// Rest is WantRead(false), but that an end or an error is told once, instead of again
// and again, until WantRead(true).
func (s *Source) Rest() { s.change(unix.EPOLLET, unix.EPOLLIN|unix.EPOLLRDHUP) }

// WantEnd is WantRead(false), but that Readable is called when the peer has ended
// its stream, whatever waits to be read before that; until WantRead(true).
func (s *Source) WantEnd() { s.change(unix.EPOLLRDHUP, unix.EPOLLIN|unix.EPOLLET) }

// WantWrite says whether Writable is to be called.
func (s *Source) WantWrite(want bool) {
	if want {
		s.change(unix.EPOLLOUT, 0)
		return
	}
	s.change(0, unix.EPOLLOUT)
}

// Belong makes s a source of that owner instead. It may be called by its handler, on
// the loop, only.
func (s *Source) Belong(name string) {
	l := s.loop
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.name != name {
		l.leaveOwner(s)
		l.joinOwner(s, name)
	}
}

func (s *Source) change(more, less uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	events := s.events&^less | more
	if s.gone || events == s.events {
		return
	}
	s.events = events
	ev := unix.EpollEvent{Events: events, Fd: s.slot}
	// It fails for lack of kernel memory only; then the peer seems silent until
	// a timeout ends it.
	s.loop.calls.Controls.Add(1)
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

// Remove ends the watch; no method of the handler is called after it returned on
// the loop's goroutine. The descriptor is the caller's to close, afterwards.
func (s *Source) Remove() {
	if s.end() {
		s.loop.calls.Controls.Add(1)
		_ = unix.EpollCtl(s.loop.fd, unix.EPOLL_CTL_DEL, s.fd, nil)
		s.loop.forget(s)
	}
}

// Close is Remove that closes the descriptor, which must be the only one of its
// file: the kernel ends the watch with it, and is asked once instead of twice. It
// does nothing after Remove or Close.
func (s *Source) Close() error {
	if !s.end() {
		return nil
	}
	err := unix.Close(s.fd)
	s.loop.forget(s)
	return os.NewSyscallError("close", err)
}

// end notes that s is watched no longer, and reports whether it was.
func (s *Source) end() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	gone := s.gone
	s.gone = true
	return !gone
}

// wanted reports whether s is watched, and for reading.
func (s *Source) wanted() (alive, read bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.gone, !s.gone && s.events&unix.EPOLLIN != 0
}

// serve calls what is due of s.
func (s *Source) serve() {
	readable, writable, woke := s.readable, s.writable, s.woke
	s.readable, s.writable, s.woke = false, false, false
	if writable {
		if alive, _ := s.wanted(); alive {
			s.h.Writable(s.loop)
		}
	}
	if woke {
		if alive, _ := s.wanted(); alive {
			s.h.Woken(s.loop)
		}
	}
	if readable {
		// An end or an error is told to who wants no bytes too.
		if alive, read := s.wanted(); read || alive && !woke {
			s.h.Readable(s.loop)
		}
	}
}
