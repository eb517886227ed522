// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// counted counts the calls that would be system calls.
type counted struct {
	net.Conn
	reads, writes atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.reads.Add(1)
	return n, err
}

func (c *counted) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

// tcp returns two ends of a connection through the kernel.
func tcp(t *testing.T) (a, b *counted) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	dialed, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return &counted{Conn: dialed}, &counted{Conn: accepted}
}

// However many batches a turn has for the other end, by however many clients they are, they
// cost one write; and what comes with one read is handed over before the next.
func TestConn_Calls(t *testing.T) {
	na, nb := tcp(t)
	var a, b *Conn
	var aerr, berr error
	var wg sync.WaitGroup
	wg.Go(func() { a, aerr = New(t.Context(), na, Config{Node: "a", Direct: func() {}}) })
	wg.Go(func() { b, berr = New(t.Context(), nb, Config{Node: "b"}) })
	wg.Wait()
	if aerr != nil || berr != nil {
		t.Fatalf("New: %v, %v", aerr, berr)
	}
	idle := make(chan int, 1024)
	got, sent := 0, 0
	ended := make(chan error, 1)
	go func() {
		ended <- b.Run(t.Context(), Receiver{
			Batch: func([]byte, int) error { got++; return nil },
			Idle:  func() { idle <- got },
		})
	}()
	for _, c := range []struct{ batches, size int }{{1, 64}, {100, 64}, {400, 64}, {10, 50_000}} {
		t.Run(fmt.Sprintf("batches=%d/size=%d", c.batches, c.size), func(t *testing.T) {
			frame := strings.Repeat("x", c.size)
			writes, reads := na.writes.Load(), nb.reads.Load()
			for range c.batches {
				if err := a.Append(text(frame)); err != nil {
					t.Fatal(err)
				}
			}
			a.Flush()
			sent += c.batches
			for have := 0; have < sent; {
				have = <-idle
			}
			if n := na.writes.Load() - writes; n != 1 {
				t.Errorf("%d writes, expected one", n)
			}
			// A read has what the kernel has, up to 64 KiB; loopback hands a write over in a few
			// pieces.
			if most := int64(2 + 2*c.batches*(c.size+HeaderSize)/(64<<10)); nb.reads.Load()-reads > most {
				t.Errorf("%d reads, expected at most %d", nb.reads.Load()-reads, most)
			}
		})
	}
	_ = a.Close()
	_ = b.Close()
	<-ended
}
