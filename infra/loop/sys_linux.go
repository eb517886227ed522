// SPDX-License-Identifier: Apache-2.0

package loop

import (
	"errors"
	"io"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls here never wait, so that Go's scheduler need not hear of them. It
// would wake its monitor thread at the first one after each sleep, which costs
// more than reading and writing a message (docs/bench).

// Read reads what is there from a descriptor in non-blocking mode: 0 and no
// error if nothing is, io.EOF at the end of the stream.
func Read(fd int, p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if raceEnabled {
		return once("read", fd, p, syscall.Read, io.EOF)
	}
	for {
		n, _, errno := syscall.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
		switch {
		case errno == 0 && n == 0:
			return 0, io.EOF
		case errno == 0:
			return int(n), nil
		case errno == unix.EAGAIN:
			return 0, nil
		case errno != unix.EINTR:
			return 0, os.NewSyscallError("read", errno)
		}
	}
}

// Write writes what a descriptor in non-blocking mode takes at once, which may
// be nothing.
func Write(fd int, p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if raceEnabled {
		return once("write", fd, p, syscall.Write, nil)
	}
	for {
		n, _, errno := syscall.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
		switch {
		case errno == 0:
			return int(n), nil
		case errno == unix.EAGAIN:
			return 0, nil
		case errno != unix.EINTR:
			return 0, os.NewSyscallError("write", errno)
		}
	}
}

// Writev writes what a descriptor in non-blocking mode takes at once of head and
// then tail, neither of which is empty.
func Writev(fd int, head, tail []byte) (int, error) {
	if raceEnabled {
		n, err := Write(fd, head)
		if n < len(head) || err != nil {
			return n, err
		}
		m, err := Write(fd, tail)
		return n + m, err
	}
	iov := [2]unix.Iovec{{Base: &head[0]}, {Base: &tail[0]}}
	iov[0].SetLen(len(head))
	iov[1].SetLen(len(tail))
	for {
		n, _, errno := syscall.RawSyscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(&iov)), uintptr(len(iov)))
		switch {
		case errno == 0:
			return int(n), nil
		case errno == unix.EAGAIN:
			return 0, nil
		case errno != unix.EINTR:
			return 0, os.NewSyscallError("writev", errno)
		}
	}
}

// poll takes the events that are there.
func poll(fd int, events []unix.EpollEvent) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(fd), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
		switch {
		case errno == 0:
			return int(n), nil
		case errno != unix.EINTR && !errors.Is(errno, unix.EAGAIN):
			return 0, os.NewSyscallError("epoll_pwait", errno)
		}
	}
}

// atEnd reports whether a socket's stream has ended, without taking anything off it.
func atEnd(fd int) bool {
	var b [1]byte
	n, _, err := unix.Recvfrom(fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return n == 0 && err == nil || err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR)
}

// ended reports whether a socket's peer has ended its stream, or the connection is
// broken, even if bytes wait to be read before that.
func ended(fd int) bool {
	p := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(p[:], 0)
	return n > 0 && err == nil
}
