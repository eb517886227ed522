// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"errors"
	"net"
	"os"
	"syscall"

	"github.com/manormq/manor/infra/loop"
)

// errStays says that a Socket is of no use to an event loop, or not now.
var errStays = errors.New("listener: the connection stays with its goroutine")

// Movable reports whether the bytes of MQTT are those of the socket, so that an
// event loop may have it.
func (c *Conn) Movable() bool {
	s, ok := c.Conn.(*Socket)
	return ok && s.raw != nil
}

// Moved reports whether an event loop has the socket.
func (s *Socket) Moved() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.source != nil
}

// Move gives the socket to a loop that calls h from then on, perhaps before
// Move returns. Of the Socket's methods Write, Backlog, Bound, Shut and Abort
// may be called as before, ReadNow, Drain and Close on the loop only, and none of
// the net.Conn's. An error leaves everything as it was.
func (s *Socket) Move(l *loop.Loop, h loop.Handler) (*loop.Source, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.raw == nil || s.source != nil || s.draining || s.shut || s.err != nil {
		return nil, errStays
	}
	// Go's poller goes on watching a descriptor until that is closed, and would
	// be woken for every packet. A copy is free of it.
	fd, derr := -1, error(nil)
	if err := s.raw.Control(func(old uintptr) { fd, derr = duplicate(old) }); err != nil {
		return nil, err
	}
	if derr != nil {
		return nil, os.NewSyscallError("dup", derr)
	}
	s.fd = fd
	source, err := l.Add(fd, h)
	if err != nil {
		_ = syscall.Close(fd)
		return nil, err
	}
	_ = s.Conn.Close() // the copy keeps the connection
	s.source, s.Conn, s.raw, s.attempt = source, nil, nil, nil
	return source, nil
}

// ReadNow reads what is there: 0 and no error if nothing is, io.EOF at the end.
func (s *Socket) ReadNow(p []byte) (int, error) { return loop.Read(s.fd, p) }

// Drain writes some of the backlog.
func (s *Socket) Drain() {
	s.mu.Lock()
	if s.draining && s.err == nil {
		n, err := loop.Write(s.fd, s.backlog[s.off:min(len(s.backlog), s.off+chunk)])
		s.tookLocked(n, err)
	}
	if s.off == len(s.backlog) || s.err != nil {
		s.backlog, s.off, s.draining = nil, 0, false
		s.source.WantWrite(false)
		if s.shut {
			s.closeWrite()
		}
	}
	progress := s.progress
	s.mu.Unlock()
	if progress != nil {
		progress()
	}
}

func (s *Socket) close() error {
	s.mu.Lock()
	if s.source == nil {
		s.mu.Unlock()
		return s.Conn.Close()
	}
	defer s.mu.Unlock()
	if s.fd < 0 {
		return net.ErrClosed
	}
	s.source.Remove()
	err := syscall.Close(s.fd)
	s.fd, s.err = -1, net.ErrClosed
	return err
}
