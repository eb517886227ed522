// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"sync"
)

// The buffers for what a WebSocket reads, in bytes: leanRead is what is read at once
// while little comes, leanBusy after that was filled, for as long as more comes at
// once. net/http gives 4 KiB, which an idle connection would keep. The buffer for what is
// written stays: a message that does not fit goes out in two pieces.
const (
	leanRead = 512
	leanBusy = 4 << 10
)

// leanWriter is an http.ResponseWriter whose connection comes with a small buffer.
type leanWriter struct{ http.ResponseWriter }

// Hijack implements http.Hijacker.
func (w leanWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	lean := &leanConn{Conn: c}
	// What was read behind the request is in the new buffer as it was in the old one.
	left, _ := rw.Peek(rw.Reader.Buffered())
	r := bufio.NewReaderSize(io.MultiReader(bytes.NewReader(left), lean), max(leanRead, len(left)))
	_, _ = r.Peek(len(left))
	return lean, bufio.NewReadWriter(r, rw.Writer), nil
}

// leanConn reads for a small buffer above it, and borrows a large one while much
// comes. One goroutine reads at a time.
type leanConn struct {
	net.Conn
	busy *[leanBusy]byte // nil while little comes
	r, w int             // what of busy is to be given out
	full bool            // the last read has brought much
}

var leanPool = sync.Pool{New: func() any { return new([leanBusy]byte) }}

// Read implements net.Conn.
func (c *leanConn) Read(p []byte) (n int, err error) {
	switch {
	case c.r < c.w:
	case !c.full || len(p) >= leanBusy:
		c.giveBack() // before a read that may take long
		n, err = c.Conn.Read(p)
		c.full = n == len(p)
		return n, err
	default:
		if c.busy == nil {
			c.busy, _ = leanPool.Get().(*[leanBusy]byte)
		}
		c.r = 0
		c.w, err = c.Conn.Read(c.busy[:])
		c.full = c.w > leanRead
		if c.w > 0 {
			err = nil // which comes again when what was read is given out
		}
	}
	n = copy(p, c.busy[c.r:c.w])
	if c.r += n; c.r == c.w && !c.full {
		c.giveBack()
	}
	return n, err
}

// giveBack returns the large buffer, all of which was given out, if there is one.
func (c *leanConn) giveBack() {
	if c.busy != nil {
		leanPool.Put(c.busy)
		c.busy, c.r, c.w = nil, 0, 0
	}
}
