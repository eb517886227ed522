// SPDX-License-Identifier: Apache-2.0

package loop

import (
	"net"
	"sync"
	"syscall"
)

// Quiet returns nc with reads and writes that the scheduler hears of only when
// they wait (see Read); nc itself if it is not a kernel's connection. Like a
// net.Conn it may be used concurrently.
func Quiet(nc net.Conn) net.Conn {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nc
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nc
	}
	q := &quiet{Conn: nc, raw: raw}
	q.reading.try = func(fd uintptr) bool {
		r := &q.reading
		r.n, r.err = Read(int(fd), r.p)
		return r.n > 0 || r.err != nil
	}
	q.writing.try = func(fd uintptr) bool {
		w := &q.writing
		n, err := Write(int(fd), w.p[w.n:])
		w.n, w.err = w.n+n, err
		return w.n == len(w.p) || err != nil
	}
	return q
}

type quiet struct {
	net.Conn
	raw              syscall.RawConn
	reading, writing transfer
}

// transfer is a read or a write. Its function is kept so that none is allocated.
type transfer struct {
	mu  sync.Mutex
	p   []byte
	n   int
	err error
	try func(fd uintptr) bool
}

func (t *transfer) run(p []byte, wait func(func(uintptr) bool) error) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.p, t.n, t.err = p, 0, nil
	err := wait(t.try)
	t.p = nil
	if err == nil {
		err = t.err
	}
	return t.n, err
}

func (q *quiet) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	return q.reading.run(p, q.raw.Read)
}

func (q *quiet) Write(p []byte) (int, error) { return q.writing.run(p, q.raw.Write) }

// SyscallConn implements syscall.Conn.
func (q *quiet) SyscallConn() (syscall.RawConn, error) { return q.raw, nil }

// CloseWrite closes the outgoing half, if nc can.
func (q *quiet) CloseWrite() error {
	if c, ok := q.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}
