// SPDX-License-Identifier: Apache-2.0

//go:build linux

package loop_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/manormq/manor/infra/loop"
)

// layered reads a Socket as a layer above it does: through its Conn.
type layered struct {
	socket *loop.Socket
	got    atomic.Int64
	err    atomic.Pointer[error]
}

func (h *layered) Readable(l *loop.Loop) {
	n, err := h.socket.Read(l.Buffer())
	h.got.Add(int64(n))
	if err != nil && !loop.IsDry(err) {
		h.err.CompareAndSwap(nil, &err)
	}
}
func (h *layered) Writable(*loop.Loop) { h.socket.Drain() }
func (h *layered) Woken(*loop.Loop)    { _ = h.socket.Close() }

// Bytes that have come already are read by the loop while Move is under way: what
// it reads from must be the loop's by then.
func TestMove_ReadBeforeItReturns(t *testing.T) {
	w := start(t)
	for range 500 {
		ours, theirs := tcp(t)
		h := &layered{socket: loop.NewSocket(ours, nil)}
		h.socket.Async(nil, nil)
		if _, err := theirs.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		source, err := h.socket.Move(w.l, h, "")
		if err != nil {
			t.Fatal(err)
		}
		w.eventually("the loop does not read", func() bool { return h.got.Load() == 5 || h.err.Load() != nil })
		if err := h.err.Load(); err != nil {
			t.Fatalf("read: %v", *err)
		}
		source.Wake()
		_ = theirs.Close()
	}
	w.eventually("sockets stay open", func() bool { return w.l.Len() == 0 })
}

// WriteTwo writes all of both, in order, wherever the kernel stops to take more.
func TestWriteTwo(t *testing.T) {
	w := start(t)
	ours, theirs := tcp(t)
	h := &layered{socket: loop.NewSocket(ours, nil)}
	h.socket.Async(nil, nil)
	h.socket.Bound(64 << 20)
	source, err := h.socket.Move(w.l, h, "")
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	part := func(n int) []byte {
		b := make([]byte, 1+random.IntN(n))
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		return b
	}
	var want []byte
	for len(want) < 32<<20 { // more than sockets hold, so that the kernel stops somewhere
		head, tail := part(100), part(256<<10)
		want = append(append(want, head...), tail...)
		if err := h.socket.WriteTwo(head, tail); err != nil {
			t.Fatal(err)
		}
	}
	if h.socket.Backlog() == 0 {
		t.Error("the kernel took everything at once: this test tries nothing")
	}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(theirs, got); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("other bytes came than were written")
	}
	source.Wake()
	w.eventually("the socket stays open", func() bool { return w.l.Len() == 0 })
}

// ends counts how it is called, and reads nothing.
type ends struct {
	socket *loop.Socket
	calls  atomic.Int64
}

func (h *ends) Readable(*loop.Loop) {
	if h.socket.Ended() {
		h.calls.Add(1)
		_ = h.socket.Close()
	}
}
func (*ends) Writable(*loop.Loop) {}
func (*ends) Woken(*loop.Loop)    {}

// Who wants only the end hears of it behind bytes that nobody reads.
func TestWantEnd(t *testing.T) {
	w := start(t)
	ours, theirs := tcp(t)
	h := &ends{socket: loop.NewSocket(ours, nil)}
	h.socket.Async(nil, nil)
	if _, err := theirs.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if h.socket.Ended() {
		t.Error("bytes are taken for the end, before Move")
	}
	source, err := h.socket.Move(w.l, h, "")
	if err != nil {
		t.Fatal(err)
	}
	source.WantEnd()
	if h.socket.Ended() {
		t.Error("bytes are taken for the end, after Move")
	}
	_ = theirs.Close()
	w.eventually("the end is not told", func() bool { return h.calls.Load() == 1 && w.l.Len() == 0 })
	other, peer := tcp(t)
	still := loop.NewSocket(other, nil)
	_, _ = peer.Write([]byte("hello"))
	_ = peer.Close()
	w.eventually("the end is not seen before Move", still.Ended)
	_ = still.Close()
}
