// SPDX-License-Identifier: Apache-2.0

//go:build linux

package loop_test

import (
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
		source, err := h.socket.Move(w.l, h)
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
