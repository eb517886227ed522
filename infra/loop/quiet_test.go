// SPDX-License-Identifier: Apache-2.0

package loop_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/manormq/manor/infra/loop"
)

// tcp returns the two ends of a connection, the first of which is quiet.
func tcp(t *testing.T) (ours, theirs net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	theirs, err = net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	ours, err = ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ours.Close(); _ = theirs.Close() })
	return loop.Quiet(ours), theirs
}

func TestQuiet(t *testing.T) {
	ours, theirs := tcp(t)
	// More than the socket takes at once, so that the write waits.
	sent := bytes.Repeat([]byte("0123456789"), 2_000_000)
	done := make(chan error, 1)
	go func() {
		_, err := ours.Write(sent)
		done <- err
	}()
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(theirs, got); err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("what came is not what was written: %v", err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = theirs.Write(sent[:100]) }()
	if _, err := io.ReadFull(ours, got[:100]); err != nil || !bytes.Equal(got[:100], sent[:100]) {
		t.Fatalf("read: %v", err)
	}
	_ = ours.SetReadDeadline(time.Now().Add(time.Millisecond))
	if _, err := ours.Read(got); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the deadline: %v", err)
	}
	_ = ours.SetReadDeadline(time.Time{})
	if err := ours.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Error(err)
	}
	if _, err := theirs.Read(got); !errors.Is(err, io.EOF) {
		t.Errorf("after CloseWrite the other end reads %v", err)
	}
	_ = theirs.Close()
	if _, err := ours.Read(got); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
	_ = ours.Close()
	if _, err := ours.Read(got); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if _, err := ours.Write(got); !errors.Is(err, net.ErrClosed) {
		t.Errorf("write after Close: %v", err)
	}
}

func TestQuiet_Allocations(t *testing.T) {
	ours, theirs := tcp(t)
	p, q := make([]byte, 100), make([]byte, 100)
	if n := testing.AllocsPerRun(1000, func() {
		if _, err := theirs.Write(p); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(ours, q); err != nil {
			t.Fatal(err)
		}
		if _, err := ours.Write(q); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(theirs, p); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations for a read and a write", n)
	}
}
