// SPDX-License-Identifier: Apache-2.0

//go:build linux

package loop_test

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manormq/manor/infra/loop"
)

// echoes writes back what it reads of a Socket.
type echoes struct {
	socket *loop.Socket
	ended  atomic.Bool
}

func (h *echoes) Readable(l *loop.Loop) {
	n, err := h.socket.ReadNow(l.Buffer())
	if err == nil {
		_, err = h.socket.Write(l.Buffer()[:n])
	}
	if err != nil {
		_ = h.socket.Close()
		h.ended.Store(true)
	}
}
func (h *echoes) Writable(*loop.Loop) { h.socket.Drain() }
func (h *echoes) Woken(*loop.Loop)    { _ = h.socket.Close() }

func acceptor(t *testing.T) *loop.Acceptor {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a, err := loop.NewAcceptor(ln)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return a
}

// What is accepted says whose it is, writes nothing before a loop has it, and is closed
// with its descriptor, once.
func TestAcceptor(t *testing.T) {
	w, a := start(t), acceptor(t)
	for range 50 {
		theirs, err := net.Dial("tcp", a.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		s, peer, err := a.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if peer.String() != theirs.LocalAddr().String() {
			t.Errorf("the peer is %v, expected %v", peer, theirs.LocalAddr())
		}
		if !s.Own() || !s.Kernel() || s.Moved() {
			t.Error("it is not a socket for a loop")
		}
		closed := 0
		s.OnClose(func() { closed++ })
		s.Async(nil, nil)
		if n, err := s.Write([]byte("x")); n != 0 || err == nil {
			t.Errorf("a write before Move: %d, %v", n, err)
		}
		h := &echoes{socket: s}
		if _, err := s.Move(w.l, h, ""); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 5)
		if _, err := theirs.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(theirs, b); err != nil || string(b) != "hello" {
			t.Fatalf("%q came back: %v", b, err)
		}
		_ = theirs.Close()
		w.eventually("the end is not seen", h.ended.Load)
		if err := s.Close(); !errors.Is(err, net.ErrClosed) || closed != 1 {
			t.Errorf("closed again: %v, %d times told", err, closed)
		}
	}
	w.eventually("descriptors are watched", func() bool { return w.l.Len() == 0 })
}

// A Socket that no loop takes is closed all the same.
func TestAcceptor_LoopHasEnded(t *testing.T) {
	a := acceptor(t)
	theirs, err := net.Dial("tcp", a.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, _, err := a.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := theirs.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the peer reads %v, expected the end", err)
	}
}

func TestAcceptor_Close(t *testing.T) {
	a := acceptor(t)
	done := make(chan error, 1)
	go func() {
		_, _, err := a.Accept()
		done <- err
	}()
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept: %v, expected that it is closed", err)
	}
}

// rests takes note of how often its end was told, and how much it might read.
type rests struct {
	source  atomic.Pointer[loop.Source]
	called  atomic.Int64
	largest atomic.Int64
	// joins, in its next call, the owner quiet.
	joins atomic.Pointer[loop.Source]
}

func (h *rests) Readable(l *loop.Loop) {
	h.called.Add(1)
	h.largest.Store(int64(len(l.Buffer())))
	if s := h.joins.Swap(nil); s != nil {
		s.Belong("quiet")
	}
	if s := h.source.Load(); s != nil {
		s.Rest()
	}
}
func (*rests) Writable(*loop.Loop) {}
func (*rests) Woken(*loop.Loop)    {}

// pairOf adds one end of a pair of sockets to the loop, and returns the other.
func (w *world) pairOf(h loop.Handler, owner string) (*loop.Source, int) {
	w.t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	s, err := w.l.Add(fds[0], h, owner)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _, _ = unix.Close(fds[0]), unix.Close(fds[1]) })
	return s, fds[1]
}

// An end is told to a source that rests once, and again when it wants to read.
func TestSource_Rest(t *testing.T) {
	w := start(t)
	h := &rests{}
	s, other := w.pairOf(h, "")
	h.source.Store(s)
	s.Rest()
	if err := unix.Shutdown(other, unix.SHUT_RDWR); err != nil {
		t.Fatal(err)
	}
	w.eventually("the end is not told", func() bool { return h.called.Load() > 0 })
	time.Sleep(50 * time.Millisecond) // in which a loop that is told again and again is called thousands of times
	if n := h.called.Load(); n > 3 {
		t.Errorf("it was told %d times", n)
	}
	before := h.called.Load()
	s.WantRead(true)
	w.eventually("it is not told again", func() bool { return h.called.Load() > before })
}

// Those without an owner, as connections that have just come, do not make the batches of
// all others small; those of a second owner do.
func TestSource_Belong(t *testing.T) {
	w := start(t)
	var spins atomic.Int64
	newcomer := &rests{}
	_, busy := w.pairOf(&spin{&spins, 10 * time.Microsecond}, "loud")
	if _, err := loop.Write(busy, []byte("x")); err != nil {
		t.Fatal(err)
	}
	s, other := w.pairOf(newcomer, "")
	if _, err := loop.Write(other, []byte("x")); err != nil {
		t.Fatal(err)
	}
	more := func() {
		before := newcomer.called.Load()
		w.eventually("it is not called", func() bool { return newcomer.called.Load() > before+100 })
	}
	more()
	if n := newcomer.largest.Load(); n != 64<<10 {
		t.Errorf("one owner and nobody's: %d bytes are read at once", n)
	}
	newcomer.joins.Store(s)
	more()
	if n := newcomer.largest.Load(); n >= 64<<10 {
		t.Errorf("two owners: %d bytes are read at once", n)
	}
}
