// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
)

// pieces is a connection that gives what it has in pieces.
type pieces struct {
	net.Conn
	rest [][]byte
	asks []int // how much was asked for
	// look, if not nil, is called when a read begins, which may take long.
	look func()
}

func (c *pieces) Read(p []byte) (int, error) {
	c.asks = append(c.asks, len(p))
	if c.look != nil {
		c.look()
	}
	if len(c.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.rest[0])
	if c.rest[0] = c.rest[0][n:]; len(c.rest[0]) == 0 {
		c.rest = c.rest[1:]
	}
	return n, nil
}

// Whatever comes at once, and is asked for at once, arrives whole; a large buffer is
// there only while much comes.
func TestLeanConn(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, c := range []struct {
		piece int  // bytes that come at once
		ask   int  // bytes that are asked for at once
		busy  bool // much is read at once
	}{
		{100, leanRead, false},
		{leanRead, leanRead, true},
		{4 * leanBusy, leanRead, true},
		{4 * leanBusy, leanBusy, true},
		{4 * leanBusy, 7, true},
	} {
		t.Run(fmt.Sprintf("piece=%d/ask=%d", c.piece, c.ask), func(t *testing.T) {
			var sent, got []byte
			under := &pieces{}
			for range 20 {
				b := make([]byte, c.piece)
				for i := range b {
					b[i] = byte(rng.Uint32())
				}
				sent, under.rest = append(sent, b...), append(under.rest, bytes.Clone(b))
			}
			lean := &leanConn{Conn: under}
			for p := make([]byte, c.ask); ; {
				n, err := lean.Read(p)
				got = append(got, p[:n]...)
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil || n == 0 {
					t.Fatal(n, err)
				}
			}
			if !bytes.Equal(got, sent) {
				t.Fatalf("%d bytes arrived, expected the %d that were sent", len(got), len(sent))
			}
			if lean.busy != nil {
				t.Error("the large buffer is kept")
			}
			if busy := slices.Contains(under.asks, leanBusy); busy != c.busy {
				t.Errorf("%d bytes were read at once: %v, expected %v", leanBusy, busy, c.busy)
			}
		})
	}
}

// While a read waits that needs no large buffer, none is kept.
func TestLeanConn_Waiting(t *testing.T) {
	under := &pieces{rest: [][]byte{make([]byte, 3*leanBusy)}}
	lean := &leanConn{Conn: under}
	read := func(size int) {
		t.Helper()
		if n, err := lean.Read(make([]byte, size)); n != size || err != nil {
			t.Fatalf("read %d bytes, %v, expected %d", n, err, size)
		}
	}
	read(leanRead)
	read(leanRead) // from the large buffer
	if lean.busy == nil {
		t.Fatal("there is no large buffer while much comes")
	}
	read(leanBusy - leanRead) // what is left in it
	looked := false
	under.look = func() {
		if looked = true; lean.busy != nil {
			t.Error("the large buffer is kept while a read waits that does not need it")
		}
	}
	read(leanBusy)
	if !looked {
		t.Error("what is asked for at once was not read at once")
	}
}
