// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/manormq/manor/infra/loop"
)

// floor is a broker without anything that a broker is for: no limits, no
// authentication, no queues but socket buffers that grow. What it costs is what
// the kernel and the moving of bytes cost on this machine, in Go. It forwards
// packets as they came, so subscribers have the version and the QoS (0 or 1) of
// the publishers, as the generator's do.
type floor struct {
	topics topicTable
	loops  []*floorLoop
	conns  [1 << 16]atomic.Pointer[floorConn] // by descriptor
}

// floorLoop is an epoll instance and its goroutine, which never waits in a way
// that Go's scheduler knows of.
type floorLoop struct {
	f      *floor
	epoll  int
	events [256]unix.EpollEvent
	buf    []byte
	dirty  []*floorConn // to be flushed at the end of the batch of events
}

// floorPatience bounds a wait, so that the goroutine reaches a point at which
// the runtime can stop it.
const floorPatience = 100 // ms

// serveFloor serves at addr until ctx is done. It is the only thing that its
// process does: it turns garbage collection off, for which it leaves nothing,
// and each loop keeps a processor of Go's scheduler.
func serveFloor(ctx context.Context, addr string) error {
	debug.SetGCPercent(-1)
	loops := runtime.GOMAXPROCS(0)
	runtime.GOMAXPROCS(loops + 1) // one for what accepts
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = ln.Close() })()
	f := &floor{}
	for range loops {
		ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
		if err != nil {
			return os.NewSyscallError("epoll_create1", err)
		}
		l := &floorLoop{f: f, epoll: ep, buf: make([]byte, 256<<10)}
		f.loops = append(f.loops, l)
		go l.run()
	}
	for n := uint32(0); ; n++ {
		nc, err := ln.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if err := f.add(nc, f.loops[scatter(n)%uint32(len(f.loops))]); err != nil {
			return err
		}
	}
}

// scatter keeps the order in which a generator connects from deciding which
// connections share a loop.
func scatter(n uint32) uint32 { return n * 2654435761 >> 16 }

// add takes nc from Go's own poller and has l serve it.
func (f *floor) add(nc net.Conn, l *floorLoop) error {
	defer func() { _ = nc.Close() }()
	raw, err := nc.(*net.TCPConn).SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(theirs uintptr) {
		fd, err := unix.FcntlInt(theirs, unix.F_DUPFD_CLOEXEC, 0)
		if err == nil {
			f.conns[fd].Store(&floorConn{fd: fd, loop: l})
			err = unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
		}
		failed = err
	})
	return errors.Join(err, failed)
}

func (l *floorLoop) run() {
	for {
		n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.epoll), uintptr(unsafe.Pointer(&l.events[0])), uintptr(len(l.events)), floorPatience, 0, 0)
		if errno != 0 {
			continue // interrupted
		}
		for _, ev := range l.events[:n] {
			c := l.f.conns[ev.Fd].Load()
			if c == nil {
				continue
			}
			if ev.Events&unix.EPOLLOUT != 0 {
				c.resume()
			}
			if ev.Events&^unix.EPOLLOUT != 0 && !l.read(c) {
				l.close(c)
			}
		}
		for _, c := range l.dirty {
			c.flush()
		}
		l.dirty = l.dirty[:0]
	}
}

// read takes what is there, and returns false at the end of the connection.
func (l *floorLoop) read(c *floorConn) bool {
	had := copy(l.buf, c.partial)
	n, err := loop.Read(c.fd, l.buf[had:])
	if err != nil || n == 0 && had == len(l.buf) {
		return false
	}
	rest := l.buf[:had+n]
	for {
		start, end, err := extent(rest)
		if err != nil {
			return false
		}
		if end == 0 || end > len(rest) {
			break
		}
		if !l.packet(c, rest[:end], rest[start:end]) {
			return false
		}
		rest = rest[end:]
	}
	c.partial = append(c.partial[:0], rest...)
	return true
}

func (l *floorLoop) close(c *floorConn) {
	l.f.topics.remove(c)
	l.f.conns[c.fd].Store(nil)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	_ = unix.Close(c.fd)
}
