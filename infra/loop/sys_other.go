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

// Write writes what a descriptor in non-blocking mode takes at once, which may
// be nothing.
func Write(fd int, p []byte) (int, error) { return once("write", fd, p, syscall.Write, nil) }
