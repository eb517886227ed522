// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package loop

import (
	"io"
	"syscall"
)

// Read reads what is there from a descriptor in non-blocking mode: 0 and no
// error if nothing is, io.EOF at the end of the stream.
func Read(fd int, p []byte) (int, error) { return once("read", fd, p, syscall.Read, io.EOF) }

// Writev is Write of head and then tail.
func Writev(fd int, head, tail []byte) (int, error) {
	n, err := Write(fd, head)
	if n < len(head) || err != nil {
		return n, err
	}
	m, err := Write(fd, tail)
	return n + m, err
}

// Write writes what a descriptor in non-blocking mode takes at once, which may
// be nothing.
func Write(fd int, p []byte) (int, error) { return once("write", fd, p, syscall.Write, nil) }

func atEnd(int) bool { return false }

func ended(int) bool { return false }
