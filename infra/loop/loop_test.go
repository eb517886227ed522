// SPDX-License-Identifier: Apache-2.0

//go:build linux

package loop_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manormq/manor/infra/loop"
)

// echo writes back what it reads, and counts how it is called.
type echo struct {
	fd       int
	source   atomic.Pointer[loop.Source]
	woken    atomic.Int32
	writable atomic.Int32
	inside   atomic.Int32
	ended    chan struct{}
}

func (e *echo) enter() func() {
	if e.inside.Add(1) != 1 {
		panic("called concurrently")
	}
	return func() { e.inside.Add(-1) }
}

func (e *echo) Readable(l *loop.Loop) {
	defer e.enter()()
	n, err := loop.Read(e.fd, l.Buffer())
	if _, werr := loop.Write(e.fd, l.Buffer()[:n]); err != nil || werr != nil {
		e.source.Load().Remove()
		_ = unix.Close(e.fd)
		close(e.ended)
	}
}

func (e *echo) Writable(*loop.Loop) {
	defer e.enter()()
	e.writable.Add(1)
	e.source.Load().WantWrite(false)
}

func (e *echo) Woken(*loop.Loop) {
	defer e.enter()()
	e.woken.Add(1)
}

type world struct {
	t              *testing.T
	l              *loop.Loop
	begins, endsAt atomic.Int64
}

func start(t *testing.T) *world {
	t.Helper()
	w := &world{t: t}
	var err error
	w.l, err = loop.New(func() { w.begins.Add(1) }, func() bool { w.endsAt.Add(1); return false })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if w.begins.Load() != w.endsAt.Load() {
			t.Errorf("%d batches began, %d ended", w.begins.Load(), w.endsAt.Load())
		}
	})
	return w
}

// pair returns our end of a watched socket.
func (w *world) pair() (*os.File, *echo) {
	w.t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	e := &echo{fd: fds[0], ended: make(chan struct{})}
	source, err := w.l.Add(fds[0], e, "")
	if err != nil {
		w.t.Fatal(err)
	}
	e.source.Store(source)
	f := os.NewFile(uintptr(fds[1]), "socket")
	w.t.Cleanup(func() { _ = f.Close() })
	_ = f.SetDeadline(time.Now().Add(20 * time.Second))
	return f, e
}

func (w *world) eventually(what string, ok func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatal(what)
		}
	}
}

func TestEcho(t *testing.T) {
	w := start(t)
	var wg sync.WaitGroup
	for i := range 300 { // more than a batch
		f, e := w.pair()
		wg.Go(func() {
			sent := bytes.Repeat([]byte{byte(i)}, 1000)
			for range 20 {
				if _, err := f.Write(sent); err != nil {
					t.Error(err)
					return
				}
				got := make([]byte, len(sent))
				if _, err := io.ReadFull(f, got); err != nil || !bytes.Equal(got, sent) {
					t.Errorf("read %v, %v", got[:4], err)
					return
				}
			}
			_ = f.Close()
			<-e.ended
		})
	}
	wg.Wait()
	if n := w.l.Len(); n != 0 {
		t.Errorf("%d are watched still", n)
	}
}

func TestWake(t *testing.T) {
	w := start(t)
	_, e := w.pair()
	source := e.source.Load()
	const n = 2000
	for i := range n {
		source.Wake()
		if i%2 == 0 {
			w.eventually("not woken", func() bool { return e.woken.Load() > int32(i/2) })
		}
	}
	if got := e.woken.Load(); got < n/2 || got > n {
		t.Errorf("woken %d times", got)
	}
	source.Remove()
	w.eventually("the loop is at work", func() bool { return w.begins.Load() == w.endsAt.Load() })
	before := e.woken.Load()
	source.Wake()
	f2, _ := w.pair() // whose answer shows that the loop went on
	if _, err := f2.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(f2, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if e.woken.Load() > before+1 { // a Wake of before may have been on its way
		t.Error("woken after Remove")
	}
	_ = unix.Close(e.fd)
}

func TestWant(t *testing.T) {
	w := start(t)
	f, e := w.pair()
	e.source.Load().WantRead(false)
	if _, err := f.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	e.source.Load().WantWrite(true)
	w.eventually("not writable", func() bool { return e.writable.Load() == 1 })
	_ = f.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := f.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("it was read though not wanted: %v", err)
	}
	e.source.Load().WantRead(true)
	_ = f.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.ReadFull(f, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

// What is given to a loop that has ended is refused.
func TestAddAfterTheEnd(t *testing.T) {
	l, err := loop.New(func() {}, func() bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := l.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Add(0, &echo{}, ""); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Add: %v", err)
	}
}

// spin is always readable, and takes its time.
type spin struct {
	calls *atomic.Int64
	took  time.Duration
}

func (s *spin) Readable(*loop.Loop) {
	for end := time.Now().Add(s.took); time.Now().Before(end); {
		s.calls.Add(1)
	}
}
func (*spin) Writable(*loop.Loop) {}
func (*spin) Woken(*loop.Loop)    {}

// Owners take turns: who has one socket waits for one or two batches of who has
// hundreds that always have something.
func TestOwnersTakeTurns(t *testing.T) {
	w := start(t)
	var spins atomic.Int64
	for range 300 {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _, _ = unix.Close(fds[0]), unix.Close(fds[1]) })
		source, err := w.l.Add(fds[0], &spin{&spins, 200 * time.Microsecond}, "loud")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(source.Remove)
		if _, err := loop.Write(fds[1], []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	w.eventually("all are served", func() bool { return w.endsAt.Load() > 50 })
	f, _ := w.pair()
	buffer := make([]byte, 1)
	worst := int64(0)
	for range 20 {
		before := w.endsAt.Load()
		if _, err := f.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Read(buffer); err != nil {
			t.Fatal(err)
		}
		worst = max(worst, w.endsAt.Load()-before)
	}
	// All 300 at once are 60 ms, or some 100 batches.
	if worst > 30 {
		t.Errorf("an answer took %d batches, expected about 2", worst)
	}
}
