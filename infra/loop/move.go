// SPDX-License-Identifier: Apache-2.0

package loop

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"
)

// errStays says that a Socket is of no use to an event loop, or not now.
var errStays = errors.New("loop: the connection stays with its goroutine")

// dry is the error of a Read that finds nothing. crypto/tls goes on after an error
// that is temporary, with what it has of a record.
type dry struct{}

// IsDry reports whether err, of a read after Move, says that nothing is there to
// be read now.
func IsDry(err error) bool { return errors.Is(err, dry{}) }

func (dry) Error() string   { return "loop: nothing to read now" }
func (dry) Timeout() bool   { return true }
func (dry) Temporary() bool { return true }

// polled is what a Socket has in place of a net.Conn after Move. There are no
// deadlines, because nothing waits.
type polled struct{ s *Socket }

// Read spares the system call that would find nothing: less than there was room for is all
// there is. Should more have come since, epoll says so once more.
func (p polled) Read(b []byte) (int, error) {
	if p.s.dry {
		p.s.dry = false
		return 0, dry{}
	}
	n, err := p.s.ReadNow(b)
	if n == 0 && err == nil {
		err = dry{}
	}
	p.s.dry = n > 0 && n < len(b)
	return n, err
}

func (p polled) Write(b []byte) (int, error)    { return p.s.Write(b) }
func (polled) Close() error                     { return nil }
func (polled) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (polled) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (polled) SetDeadline(time.Time) error      { return nil }
func (polled) SetReadDeadline(time.Time) error  { return nil }
func (polled) SetWriteDeadline(time.Time) error { return nil }

// Kernel reports whether the connection is a kernel's, so that Move may work.
func (s *Socket) Kernel() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.raw != nil || s.own
}

// Own reports whether the socket came from an Acceptor, so that nothing but a loop
// can wait for it.
func (s *Socket) Own() bool { return s.own }

// ReadNow reads what is there, after Move: 0 and no error if nothing is, io.EOF
// at the end.
func (s *Socket) ReadNow(p []byte) (int, error) {
	s.calls.Reads.Add(1)
	return Read(s.fd, p)
}

// Moved reports whether an event loop has the socket.
func (s *Socket) Moved() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.source != nil
}

// Move gives the socket to a loop that calls h from then on, perhaps before
// Move returns. owner is as for Loop.Add. Of the Socket's methods Write, Backlog, Bound, Shut and Abort
// may be called as before, Read, Drain and Close on the loop only. Layers above
// may hold bytes already. An error leaves everything as it was.
func (s *Socket) Move(l *Loop, h Handler, owner string) (*Source, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.raw == nil && !s.own || s.source != nil || s.draining || s.shut || s.err != nil {
		return nil, errStays
	}
	fd, err := s.descriptor()
	if err != nil {
		return nil, err
	}
	// Who reads takes no lock, and the loop may do so before Add has returned.
	old := s.Conn
	s.fd, s.Conn, s.calls = fd, polled{s}, l.Calls()
	source, err := l.Add(fd, h, owner)
	if err != nil {
		s.Conn = old
		if !s.own {
			_ = syscall.Close(fd)
		}
		return nil, err
	}
	_ = old.Close() // the copy keeps the connection
	s.source, s.raw, s.attempt = source, nil, nil
	return source, nil
}

// descriptor is what a loop may watch. Go's poller goes on watching a descriptor until
// that is closed, and would be woken for every packet. A copy is free of it.
func (s *Socket) descriptor() (fd int, err error) {
	if s.own {
		return s.fd, nil
	}
	var derr error
	if err := s.raw.Control(func(old uintptr) { fd, derr = duplicate(old) }); err != nil {
		return -1, err
	}
	return fd, os.NewSyscallError("dup", derr)
}

// Drain writes some of the backlog.
func (s *Socket) Drain() {
	s.mu.Lock()
	if !s.draining { // its end or an error is told to who reads too
		s.mu.Unlock()
		return
	}
	if s.err == nil {
		s.calls.Writes.Add(1)
		n, err := Write(s.fd, s.backlog[s.off:min(len(s.backlog), s.off+chunk)])
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
	if s.source == nil && !s.own {
		s.mu.Unlock()
		return s.Conn.Close()
	}
	defer s.mu.Unlock()
	if s.fd < 0 {
		return net.ErrClosed
	}
	var err error
	if s.source != nil {
		err = s.source.Close()
	} else {
		err = syscall.Close(s.fd)
	}
	s.fd, s.err = -1, net.ErrClosed
	return err
}
