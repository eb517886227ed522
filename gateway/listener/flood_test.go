// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/loop"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/tenancy"
)

// nobody is a directory without tenants.
type nobody struct{ tenancy.Directory }

func (nobody) TenantByHost(context.Context, string) (*tenancy.Tenant, error) {
	return nil, errs.New(errs.NotFound, "nobody")
}

// A client that sends WebSocket pings and takes no pongs, before it is known
// who it is, makes the gateway keep little; when it takes them again, it is
// answered.
func TestWebSocketPingFlood(t *testing.T) {
	sockets := make(chan *loop.Socket, 1)
	l, err := New(Config{Kind: WS, Address: "127.0.0.1:0"}, Options{
		Directory: nobody{}, Log: telemetry.Discard(), HandshakeTimeout: 10 * time.Second,
		Handle: func(c *Conn) {
			c.Socket.Async(nil, func(backlog int) { t.Errorf("closed with a backlog of %d", backlog) })
			sockets <- c.Socket
			_, _ = io.Copy(io.Discard, c)
		},
		Refused: func(_ *Listener, why string) { t.Error("refused:", why) },
	})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- l.Serve() }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Close()
		_ = l.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	_ = c.SetDeadline(time.Now().Add(2 * time.Minute))
	if err := c.(*net.TCPConn).SetReadBuffer(256 << 10); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n", Path)
	in := bufio.NewReader(c)
	if r, err := http.ReadResponse(in, nil); err != nil {
		t.Fatal(err)
	} else if err := r.Body.Close(); err != nil {
		t.Fatal(err)
	}
	s := <-sockets

	ping := func(first byte) []byte {
		return append([]byte{0x89, 0x80 | 125, 0, 0, 0, 0, first}, make([]byte, 124)...)
	}
	var block []byte
	for range 1000 {
		block = append(block, ping('x')...)
	}
	for range 80 { // 10 MiB, beyond what the kernel keeps
		if _, err := c.Write(block); err != nil {
			t.Fatal(err)
		}
		if n := s.Backlog(); n > pongBacklog+1<<10 {
			t.Fatalf("%d bytes of pongs wait for the socket, at most %d should", n, pongBacklog)
		}
	}
	go func() {
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			if _, err := c.Write(ping('y')); err != nil {
				return // the test is over
			}
		}
	}()
	pong := make([]byte, 2+125)
	for pong[2] != 'y' {
		if _, err := io.ReadFull(in, pong); err != nil {
			t.Fatal("no pong for a ping after the flood:", err)
		}
	}
}

// A Socket does not trust those who write: beyond its bound the connection is
// closed, and somebody hears of it.
func TestSocketOverrunCloses(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	s := loop.NewSocket(a, nil)
	overruns := 0
	s.Async(nil, func(int) { overruns++ })
	s.Bound(100_000)
	if _, err := s.Write(make([]byte, 100_000)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write([]byte{1}); !errors.Is(err, loop.ErrOverrun) {
		t.Errorf("Write beyond the bound: %v", err)
	}
	if _, err := s.Write([]byte{1}); !errors.Is(err, loop.ErrOverrun) {
		t.Errorf("Write after the overrun: %v", err)
	}
	if overruns != 1 {
		t.Errorf("overrun was called %d times", overruns)
	}
	_ = b.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.Copy(io.Discard, b); err != nil {
		t.Errorf("the connection is not closed: %v", err)
	}
}
