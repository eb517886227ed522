// SPDX-License-Identifier: Apache-2.0

package loop

import (
	"errors"
	"net"
	"sync"
	"syscall"
)

// Socket is the lowest layer of a connection. After Async its writes do not
// block: what the kernel does not take at once stays in a backlog, and a
// goroutine that waits for the kernel exists only while there is one. TLS and
// WebSocket lie above it, so that they do not block either. After Move an event
// loop waits instead, and the Socket is its own descriptor.
//
// Who writes asks Backlog and grants the source of the bytes accordingly. The
// Socket has the last word: it closes a connection whose backlog grows beyond
// what Bound allows.
type Socket struct {
	net.Conn
	raw syscall.RawConn // nil if the connection is not a kernel's, or own
	own bool            // it came from an Acceptor: fd is the only descriptor

	// progress is called, without locks held, when the backlog has shrunk; until
	// Async when something is about to be written.
	progress func()
	// overrun is called, under mu, when the backlog is too large, once.
	overrun func(backlog int)

	mu       sync.Mutex
	async    bool
	bound    int  // of the backlog, in bytes
	shut     bool // half close when the backlog is gone
	draining bool
	backlog  []byte
	off      int // what of backlog is written
	err      error

	// The arguments and results of attempt, which is kept so that a write does
	// not allocate a closure.
	p       []byte
	n       int
	werr    error
	attempt func(fd uintptr) bool

	once    sync.Once
	onClose func()

	source *Source // nil before Move
	calls  *Calls  // after Move, of the loop
	fd     int     // after Move, or if own; -1 when closed, which is done on the loop
	dry    bool    // after Move, of the layers above: the last read took all there was
}

// DefaultBound is the largest backlog of a Socket that was told no other, in
// bytes.
const DefaultBound = 4 << 20

// ErrOverrun says that the peer does not take what is written.
var ErrOverrun = errors.New("loop: more waits for the socket than may")

// NewSocket wraps c. onClose may be nil.
func NewSocket(c net.Conn, onClose func()) *Socket {
	c = Quiet(c)
	s := &Socket{Conn: c, onClose: onClose, bound: DefaultBound}
	if sc, ok := c.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			s.raw = raw
			s.attempt = s.writeOnce
		}
	}
	return s
}

// OnClose has f called after the first Close. It is called before Move, if at all.
func (s *Socket) OnClose(f func()) { s.onClose = f }

// Async ends the time of blocking writes, in which handshakes are made.
// progress and overrun may be nil. overrun hears of the backlog for which the
// connection was closed; it is called from within Write and must not call the
// Socket.
func (s *Socket) Async(progress func(), overrun func(backlog int)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.async, s.progress, s.overrun = true, progress, overrun
}

// BeforeWrite has f called before each write until Async. It must not call the
// Socket.
func (s *Socket) BeforeWrite(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.progress = f
}

// HungUp reports whether the peer has ended the connection, as far as that can be
// seen without reading.
func (s *Socket) HungUp() bool {
	ended := false
	if s.raw != nil {
		_ = s.raw.Control(func(fd uintptr) { ended = atEnd(int(fd)) })
	}
	return ended
}

// Ended is HungUp, but that bytes may wait to be read before the end, and that it
// may be called after Move.
func (s *Socket) Ended() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.source != nil {
		return s.fd < 0 || ended(s.fd)
	}
	if s.raw == nil {
		return false
	}
	over := false
	err := s.raw.Control(func(fd uintptr) { over = ended(int(fd)) })
	return over || err != nil
}

// Bound allows a backlog of n bytes. A Write that leads beyond it closes the
// connection and fails with ErrOverrun.
func (s *Socket) Bound(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bound = n
}

// Backlog is how many bytes wait for the kernel.
func (s *Socket) Backlog() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.backlog) - s.off
}

// Write takes all of p or fails.
func (s *Socket) Write(p []byte) (int, error) {
	s.mu.Lock()
	if s.own && s.source == nil {
		s.mu.Unlock()
		return 0, errStays // nothing would ever write it
	}
	if !s.async {
		before := s.progress
		s.mu.Unlock()
		if before != nil {
			before()
		}
		return s.Conn.Write(p)
	}
	defer s.mu.Unlock()
	if err := s.writeLocked(p, nil); err != nil {
		return 0, err
	}
	return len(p), nil
}

// WriteTwo is Write of head and then tail, neither of which is empty, in one
// system call and without a copy. It may be called after Move only.
func (s *Socket) WriteTwo(head, tail []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writeLocked(head, tail)
}

// writeLocked takes all of p and then tail, which must be nil before Move, or
// fails.
func (s *Socket) writeLocked(p, tail []byte) (err error) {
	if s.err != nil {
		return s.err
	}
	if s.shut {
		return net.ErrClosed
	}
	n := 0
	switch {
	case s.draining:
	case s.source != nil:
		s.calls.Writes.Add(1)
		if tail == nil {
			n, err = Write(s.fd, p)
		} else {
			n, err = Writev(s.fd, p, tail)
		}
	case s.raw != nil:
		s.p, s.n, s.werr = p, 0, nil
		err = s.raw.Write(s.attempt)
		s.p = nil
		if err == nil {
			err = s.werr
		}
		n = s.n
	}
	if err != nil {
		s.err = err
		return err
	}
	if n == len(p)+len(tail) {
		return nil
	}
	if waits := len(s.backlog) - s.off + len(p) + len(tail) - n; waits > s.bound {
		s.err = ErrOverrun
		s.abort()
		if s.overrun != nil {
			s.overrun(waits)
		}
		return s.err
	}
	s.backlog = append(s.backlog, p[min(n, len(p)):]...)
	s.backlog = append(s.backlog, tail[max(0, n-len(p)):]...)
	if !s.draining {
		s.draining = true
		if s.source != nil {
			s.source.WantWrite(true)
		} else {
			go s.drain()
		}
	}
	return nil
}

func (s *Socket) writeOnce(fd uintptr) bool {
	s.n, s.werr = Write(int(fd), s.p)
	return true
}

// chunk is how much the drain goroutine offers the kernel at a time, so that
// progress is heard of.
const chunk = 128 << 10

func (s *Socket) drain() {
	for {
		s.mu.Lock()
		if s.off == len(s.backlog) || s.err != nil {
			s.backlog, s.off, s.draining = nil, 0, false
			if s.shut {
				s.closeWrite()
			}
			progress := s.progress
			s.mu.Unlock()
			if progress != nil {
				progress()
			}
			return
		}
		p := s.backlog[s.off:min(len(s.backlog), s.off+chunk)]
		progress := s.progress
		s.mu.Unlock()
		n, err := s.block(p)
		s.mu.Lock()
		s.tookLocked(n, err)
		s.mu.Unlock()
		if progress != nil && err == nil {
			progress()
		}
	}
}

// tookLocked notes that the kernel took n bytes of the backlog.
func (s *Socket) tookLocked(n int, err error) {
	if s.off += n; s.off > len(s.backlog)/2 && s.off < len(s.backlog) {
		s.backlog = append([]byte(nil), s.backlog[s.off:]...)
		s.off = 0
	}
	if err != nil {
		s.err = err
	}
}

// block writes some of p as soon as the kernel takes some.
func (s *Socket) block(p []byte) (n int, err error) {
	if s.raw == nil {
		return s.Conn.Write(p)
	}
	var werr error
	err = s.raw.Write(func(fd uintptr) bool {
		n, werr = Write(int(fd), p)
		return n > 0 || werr != nil
	})
	if err == nil {
		err = werr
	}
	return n, err
}

// Shut says that nothing more is written: when the backlog is gone, the
// outgoing half is closed.
func (s *Socket) Shut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shut {
		return
	}
	s.shut = true
	if !s.draining {
		s.closeWrite()
	}
}

func (s *Socket) closeWrite() {
	if s.source != nil {
		_ = syscall.Shutdown(s.fd, syscall.SHUT_WR)
		return
	}
	if c, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite() // the connection is about to be closed anyway
	}
}

// Abort breaks the connection: whoever reads finds its end, and then closes it.
func (s *Socket) Abort() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.abort()
}

// abort is Abort under mu.
func (s *Socket) abort() {
	switch {
	case s.source == nil && !s.own:
		_ = s.Conn.Close()
	case s.fd >= 0:
		_ = syscall.Shutdown(s.fd, syscall.SHUT_RDWR)
	}
}

// Close closes the connection at once; a backlog is lost. After Move it must be
// called on the loop, which may be reading the descriptor else.
func (s *Socket) Close() error {
	err := s.close()
	s.once.Do(func() {
		if s.onClose != nil {
			s.onClose()
		}
	})
	return err
}
