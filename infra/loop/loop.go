// SPDX-License-Identifier: Apache-2.0

// Package loop waits for many sockets on few goroutines: each Loop has one,
// which waits for all the descriptors that were given to it and calls their
// handlers, one at a time. A descriptor costs no goroutine, no stack and no
// buffer. Where the system has no epoll, New fails with ErrUnsupported and the
// caller keeps a goroutine for each connection. A Socket is a connection whose
// writes never wait, with a goroutine or on a Loop. It knows nothing of MQTT.
package loop

import (
	"errors"
	"sync/atomic"
)

// ErrUnsupported says that this system has no event loops here.
var ErrUnsupported = errors.New("loop: not supported on this system")

// Handler is what is watched. Its methods are called on the loop that watches
// it, never concurrently; they must not block, because everything else on the
// loop waits for them.
type Handler interface {
	// Readable is called while bytes, an end of stream or an error wait to be
	// read, if that is wanted.
	Readable(l *Loop)
	// Writable is called while the descriptor takes bytes, if that is wanted.
	Writable(l *Loop)
	// Woken is called once after one or several calls of Source.Wake.
	Woken(l *Loop)
}

// Calls are the system calls of a Loop and of the Sockets that it has. Controls are those that
// change what is waited for.
type Calls struct{ Polls, Reads, Writes, Controls atomic.Uint64 }

// bufferSize is what a Loop reads into.
const bufferSize = 64 << 10
