// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pair returns two introduced ends over a pipe.
func pair(t *testing.T, a, b Config) (*Conn, *Conn) {
	t.Helper()
	na, nb := Pipe()
	var ca *Conn
	var aerr error
	var wg sync.WaitGroup
	wg.Go(func() { ca, aerr = New(t.Context(), na, a) })
	cb, berr := New(t.Context(), nb, b)
	wg.Wait()
	if aerr != nil || berr != nil {
		t.Fatalf("New: %v, %v", aerr, berr)
	}
	t.Cleanup(func() { _ = ca.Close(); _ = cb.Close() })
	return ca, cb
}

// text returns an encoder of one frame that is s.
func text(s string) func([]byte) ([]byte, int) {
	return func(dst []byte) ([]byte, int) { return append(dst, s...), 1 }
}

// run runs c and sends its batches to the channel.
func run(t *testing.T, c *Conn) (batches chan string, ended chan error) {
	batches, ended = make(chan string, 1024), make(chan error, 1)
	go func() {
		ended <- c.Run(t.Context(), Receiver{Batch: func(frames []byte, count int) error {
			batches <- fmt.Sprintf("%d:%s", count, frames)
			return nil
		}})
	}()
	return batches, ended
}

func TestNew_BothEndsAreIntroduced(t *testing.T) {
	a, b := pair(t, Config{Node: "gw-1", Features: 0b0110}, Config{Node: "br-1", Features: 0b1100})
	if a.Peer() != "br-1" || b.Peer() != "gw-1" {
		t.Errorf("peers are %q and %q", a.Peer(), b.Peer())
	}
	if a.Features() != 0b0100 || b.Features() != 0b0100 {
		t.Errorf("features are %b and %b, want 100", a.Features(), b.Features())
	}
}

func TestNew_RefusesStrangers(t *testing.T) {
	for name, sent := range map[string]string{
		"http":        "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"version":     "MLNK\x00\x09\x00\x00\x00\x00\x01x",
		"no name":     "MLNK\x00\x01\x00\x00\x00\x00\x00",
		"ends early":  "MLNK\x00",
		"cut name":    "MLNK\x00\x01\x00\x00\x00\x00\x05ab",
		"says nought": "",
	} {
		t.Run(name, func(t *testing.T) {
			na, nb := Pipe()
			go func() { _, _ = io.Copy(io.Discard, nb) }()
			go func() {
				_, _ = nb.Write([]byte(sent))
				_ = nb.Close()
			}()
			_, err := New(t.Context(), na, Config{Node: "n"})
			if !errors.Is(err, ErrPreface) || Silent(err) != (sent == "") {
				t.Errorf("New: %v, silent %v, want ErrPreface", err, Silent(err))
			}
		})
	}
}

func TestNew_GivesUpWithItsContext(t *testing.T) {
	na, _ := Pipe()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := New(ctx, na, Config{Node: "n"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("New: %v, want DeadlineExceeded", err)
	}
}

func TestConn_BatchesKeepTheirOrderAndSize(t *testing.T) {
	a, b := pair(t, Config{Node: "a"}, Config{Node: "b"})
	_, _ = run(t, a)
	batches, _ := run(t, b)
	big := strings.Repeat("x", 300_000)
	want := []string{"one", "two", big, "three", strings.Repeat("y", 64<<10-HeaderSize), strings.Repeat("z", 64<<10)}
	for _, s := range want {
		if err := a.Append(text(s)); err != nil {
			t.Fatal(err)
		}
	}
	a.Flush()
	for _, s := range want {
		if got := <-batches; got != "1:"+s {
			t.Fatalf("a batch of %d bytes came as %d bytes", len(s), len(got)-2)
		}
	}
	if err := a.Append(func(dst []byte) ([]byte, int) { return dst, 0 }); err != nil || a.Pending() != 0 {
		t.Errorf("an empty batch: %v, %d bytes wait", err, a.Pending())
	}
}

func TestConn_IdleFollowsTheLastBatchOfARead(t *testing.T) {
	a, b := pair(t, Config{Node: "a"}, Config{Node: "b"})
	_, _ = run(t, a)
	events := make(chan string, 16)
	go func() {
		_ = b.Run(t.Context(), Receiver{
			Batch: func(frames []byte, _ int) error { events <- string(frames); return nil },
			Idle:  func() { events <- "idle" },
		})
	}()
	for _, s := range []string{"1", "2", "3"} {
		_ = a.Append(text(s))
	}
	a.Flush()
	got := ""
	for len(got) < 7 {
		got += <-events
	}
	if got != "123idle" {
		t.Errorf("events %q, want three batches of one read, then idle", got)
	}
}

func TestConn_CloseEndsBothEnds(t *testing.T) {
	a, b := pair(t, Config{Node: "a"}, Config{Node: "b"})
	_, aEnded := run(t, a)
	_, bEnded := run(t, b)
	_ = a.Close()
	if err := <-aEnded; !errors.Is(err, ErrClosed) {
		t.Errorf("the end that closed: %v, want ErrClosed", err)
	}
	if err := <-bEnded; !errors.Is(err, io.EOF) {
		t.Errorf("the other end: %v, want EOF", err)
	}
	if err := a.Append(text("late")); !errors.Is(err, ErrClosed) {
		t.Errorf("Append after the end: %v, want ErrClosed", err)
	}
	a.Flush()
}

func TestConn_MalformedBatchesEndTheConnection(t *testing.T) {
	header := func(length uint32, count, flags uint16) []byte {
		b := binary.BigEndian.AppendUint32(nil, length)
		b = binary.BigEndian.AppendUint16(b, count)
		return binary.BigEndian.AppendUint16(b, flags)
	}
	for name, raw := range map[string][]byte{
		"too long":       header(1<<20, 1, 0),
		"unknown flag":   append(header(1, 1, 0x80), 'x'),
		"ping too short": append(header(1, 0, flagPing), 'x'),
		"both flags":     append(header(8, 0, flagPing|flagPong), "12345678"...),
	} {
		t.Run(name, func(t *testing.T) {
			na, nb := Pipe()
			go func() {
				_, _ = nb.Write(preface("b", Versions{}, 0))
				_, _ = nb.Write(raw)
			}()
			go func() { _, _ = io.Copy(io.Discard, nb) }()
			a, err := New(t.Context(), na, Config{Node: "a", MaxBatch: 1 << 10})
			if err != nil {
				t.Fatal(err)
			}
			if err := a.Run(t.Context(), Receiver{Batch: func([]byte, int) error { return nil }}); !errors.Is(err, ErrMalformed) {
				t.Errorf("Run: %v, want ErrMalformed", err)
			}
		})
	}
	a, _ := pair(t, Config{Node: "a", MaxBatch: 100}, Config{Node: "b"})
	if err := a.Append(text(strings.Repeat("x", 92))); err != nil {
		t.Errorf("Append of exactly MaxBatch: %v", err)
	}
	if err := a.Append(text(strings.Repeat("x", 92))); err != nil {
		t.Errorf("Append of exactly MaxBatch: %v", err)
	}
}

// A header that announces much costs nothing before the bytes come.
func TestConn_AnnouncedSizeIsNotAllocated(t *testing.T) {
	allocs := testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			na, nb := Pipe()
			go func() {
				_, _ = nb.Write(preface("b", Versions{}, 0))
				_, _ = nb.Write([]byte{0x0f, 0xff, 0xff, 0xff, 0, 1, 0, 0, 'x'})
				_ = nb.Close()
			}()
			go func() { _, _ = io.Copy(io.Discard, nb) }()
			c, err := New(context.Background(), na, Config{Node: "a"})
			if err != nil {
				b.Fatal(err)
			}
			_ = c.Run(context.Background(), Receiver{Batch: func([]byte, int) error { return nil }})
		}
	})
	if got := allocs.AllocedBytesPerOp(); got > 4<<20 {
		t.Errorf("%d bytes allocated for a promise of 268 MB, want at most 4 MiB", got)
	}
}

// What was appended is sent or the connection ends: no batch is missing between
// two others.
func TestConn_BatchTooLargeEndsTheConnection(t *testing.T) {
	a, b := pair(t, Config{Node: "a", MaxBatch: 100}, Config{Node: "b"})
	_, ended := run(t, a)
	_, other := run(t, b)
	if err := a.Append(text(strings.Repeat("x", 93))); !errors.Is(err, ErrTooLarge) {
		t.Errorf("Append of more than MaxBatch: %v, want ErrTooLarge", err)
	}
	if err := <-ended; !errors.Is(err, ErrTooLarge) {
		t.Errorf("Run: %v, want ErrTooLarge", err)
	}
	if err := <-other; err == nil {
		t.Error("the other end does not hear of it")
	}
	if err := a.Append(text("x")); !errors.Is(err, ErrTooLarge) {
		t.Errorf("Append afterwards: %v, want ErrTooLarge", err)
	}
}

func TestConn_OverrunEndsTheConnection(t *testing.T) {
	a, _ := pair(t, Config{Node: "a", MaxPending: 1 << 20}, Config{Node: "b"})
	var err error
	for range 20 {
		if err = a.Append(text(strings.Repeat("x", 100_000))); err != nil {
			break
		}
	}
	if !errors.Is(err, ErrOverrun) {
		t.Errorf("Append: %v, want ErrOverrun", err)
	}
	if a.Pending() != 0 {
		t.Errorf("%d bytes are kept after the end", a.Pending())
	}
}

func TestConn_KeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t, Config{Node: "a"}, Config{Node: "b"})
		_, aEnded := run(t, a)
		_, _ = run(t, b)
		time.Sleep(time.Hour)
		select {
		case err := <-aEnded:
			t.Fatalf("an idle connection ended: %v", err)
		default:
		}
		if a.RoundTrip() == 0 {
			t.Error("no ping was answered in an hour")
		}
		_ = a.Close()
		_ = b.Close()
	})
	synctest.Test(t, func(t *testing.T) { // the other end is there and says nothing
		na, nb := Pipe()
		go func() {
			_, _ = nb.Write(preface("b", Versions{}, 0))
			_, _ = io.Copy(io.Discard, nb)
		}()
		a, err := New(t.Context(), na, Config{Node: "a"})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		err = a.Run(t.Context(), Receiver{})
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("Run: %v, want a timeout", err)
		}
		if took := time.Since(start); took != 15*time.Second {
			t.Errorf("silence was borne for %v, want 15 s", took)
		}
	})
}

func TestConn_ConcurrentAppendsAreWhole(t *testing.T) {
	a, b := pair(t, Config{Node: "a"}, Config{Node: "b"})
	_, _ = run(t, a)
	batches, _ := run(t, b)
	const writers, each = 8, 100
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				body := bytes.Repeat([]byte{byte('a' + w)}, 1+i*7)
				if err := a.Append(func(dst []byte) ([]byte, int) { return append(dst, body...), 1 }); err != nil {
					t.Error(err)
				}
				a.Flush()
			}
		})
	}
	next := [writers]int{}
	for range writers * each {
		got := <-batches
		w := int(got[2] - 'a')
		if want := "1:" + strings.Repeat(got[2:3], 1+next[w]*7); got != want {
			t.Fatalf("writer %d: batch %d is %d bytes, want %d", w, next[w], len(got), len(want))
		}
		next[w]++
	}
	wg.Wait()
}

// Both ends speak the highest version that both know, also with a node that says none,
// and both find that there is none.
func TestConn_Versions(t *testing.T) {
	for _, c := range []struct {
		a, b Versions
		want uint8
	}{
		{Versions{}, Versions{}, 1},
		{Versions{1, 3}, Versions{}, 1},
		{Versions{1, 3}, Versions{2, 5}, 3},
		{Versions{1, MostVersion}, Versions{MostVersion, MostVersion}, MostVersion},
		{Versions{1, 2}, Versions{3, 4}, 0},
		{Versions{2, 3}, Versions{}, 0},
	} {
		na, nb := Pipe()
		found := make(chan error, 1)
		version := make(chan uint8, 1)
		go func() {
			b, err := New(context.Background(), nb, Config{Node: "b", Versions: c.b, Features: 5})
			if err == nil {
				version <- b.Version()
			}
			found <- err
		}()
		a, err := New(t.Context(), na, Config{Node: "a", Versions: c.a, Features: 6})
		other := <-found
		if c.want == 0 {
			if !errors.Is(err, ErrVersion) || !errors.Is(other, ErrVersion) {
				t.Errorf("%v with %v: %v, and %v", c.a, c.b, err, other)
			}
			continue
		}
		if err != nil || other != nil {
			t.Fatalf("%v with %v: %v, and %v", c.a, c.b, err, other)
		}
		if v := <-version; a.Version() != c.want || v != c.want || a.Features() != 4 {
			t.Errorf("%v with %v: %d and %d, features %#x; expected version %d, features 4", c.a, c.b, a.Version(), v, a.Features(), c.want)
		}
	}
}
