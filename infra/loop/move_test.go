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
