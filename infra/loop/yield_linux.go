// SPDX-License-Identifier: Apache-2.0

package loop

import (
	"encoding/binary"
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// yieldEvery is how often a goroutine that always has work looks for what has
// come from the kernel meanwhile.
const yieldEvery = 500 * time.Microsecond

// Yield is a pause of a goroutine that always has work. Go's scheduler asks the
// kernel for events when a processor has nothing to run, else every 10 ms only: and
// a goroutine that calls runtime.Gosched again and again is something to run. So
// that one waits, every now and then, for an event that it has made itself, and
// whatever came before is found with it. The zero Yield is ready for use, by one
// goroutine.
type Yield struct {
	f    *os.File
	raw  syscall.RawConn
	next time.Time
	made bool
	wait func(fd uintptr) bool
}

// Now lets others run.
func (y *Yield) Now() {
	now := time.Now()
	if now.Before(y.next) || !y.open() {
		runtime.Gosched()
		return
	}
	y.made = false
	if y.raw.Read(y.wait) != nil {
		runtime.Gosched()
	}
	y.next = time.Now().Add(yieldEvery)
}

// open makes the descriptor when it is first needed. It reports false for want of
// descriptors, and tries again later.
func (y *Yield) open() bool {
	if y.f != nil {
		return true
	}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return false
	}
	f := os.NewFile(uintptr(fd), "yield")
	raw, err := f.SyscallConn()
	if err != nil {
		_ = f.Close()
		return false
	}
	y.f, y.raw = f, raw
	y.wait = func(fd uintptr) bool {
		if y.made {
			return true
		}
		y.made = true
		// Nobody reads the counter, since each write is an edge.
		var one [8]byte
		binary.NativeEndian.PutUint64(one[:], 1)
		_, err := Write(int(fd), one[:])
		return err != nil
	}
	return true
}

// Close gives the descriptor back. Now must not be called after it.
func (y *Yield) Close() {
	if y.f != nil {
		_ = y.f.Close()
	}
}
