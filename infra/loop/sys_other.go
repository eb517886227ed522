// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package loop

import (
	"errors"
	"io"
	"os"
	"syscall"
)

// Read reads what is there from a descriptor in non-blocking mode: 0 and no
// error if nothing is, io.EOF at the end of the stream.
func Read(fd int, p []byte) (int, error) { return once("read", fd, p, syscall.Read, io.EOF) }

// Write writes what a descriptor in non-blocking mode takes at once, which may
// be nothing.
func Write(fd int, p []byte) (int, error) { return once("write", fd, p, syscall.Write, nil) }

func once(name string, fd int, p []byte, call func(int, []byte) (int, error), nothing error) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		n, err := call(fd, p)
		switch {
		case err == nil && n == 0:
			return 0, nothing
		case err == nil:
			return n, nil
		case errors.Is(err, syscall.EAGAIN):
			return 0, nil
		case !errors.Is(err, syscall.EINTR):
			return 0, os.NewSyscallError(name, err)
		}
	}
}
