// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"net"
	"testing"
	"time"

	"github.com/manormq/manor/infra/loop"
)

func TestForwardedFor(t *testing.T) {
	c := Config{TrustedProxies: []string{"10.0.0.0/8", "192.0.2.1", "2001:db8::/32"}}
	trusted, err := c.trusted()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		values []string
		want   string // empty: none
	}{
		{nil, ""},
		{[]string{"198.51.100.7"}, "198.51.100.7"},
		{[]string{"1.1.1.1, 198.51.100.7, 10.1.2.3"}, "198.51.100.7"},
		{[]string{"1.1.1.1", "198.51.100.7", "192.0.2.1,10.0.0.1"}, "198.51.100.7"},
		{[]string{"198.51.100.7:4711"}, "198.51.100.7"},
		{[]string{"[2001:db9::1], 2001:db8::5"}, "2001:db9::1"},
		{[]string{"::ffff:198.51.100.7"}, "198.51.100.7"},
		{[]string{"1.1.1.1, unknown"}, ""}, // what is left of it may be invented
		{[]string{"10.0.0.1, 10.0.0.2"}, ""},
	} {
		a, ok := forwardedFor(c.values, trusted)
		if ok != (c.want != "") || ok && a.String() != c.want {
			t.Errorf("forwardedFor(%q) = %v, %v", c.values, a, ok)
		}
	}
}

// A Socket over something that is no kernel's socket does not block either.
func TestSocketKeepsBacklog(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	moved := make(chan struct{}, 100)
	closed := false
	s := loop.NewSocket(a, func() { closed = true })
	s.Async(func() { moved <- struct{}{} }, nil)
	for range 3 {
		if n, err := s.Write(make([]byte, 100_000)); n != 100_000 || err != nil {
			t.Fatalf("Write = %d, %v", n, err)
		}
	}
	if s.Backlog() != 300_000 {
		t.Errorf("Backlog = %d", s.Backlog())
	}
	_ = b.SetReadDeadline(time.Now().Add(10 * time.Second))
	for got := 0; got < 300_000; {
		n, err := b.Read(make([]byte, 64<<10))
		if err != nil {
			t.Fatal(err)
		}
		got += n
	}
	for s.Backlog() > 0 {
		<-moved
	}
	s.Shut()
	if _, err := s.Write([]byte("x")); err == nil {
		t.Error("a Socket that was shut takes bytes")
	}
	_ = s.Close()
	if !closed {
		t.Error("onClose was not called")
	}
}
