// SPDX-License-Identifier: Apache-2.0

// Package conn is the connection machine: what dies with a client's socket.
// It turns decoded packets into frames for the broker, and the broker's frames
// into bytes for the client: protocol version, keep alive, topic aliases, both
// maximum packet sizes, the inbound receive maximum, the grant, and the reason
// with which a connection ends.
//
// The machine is pure: no goroutine, no clock, no I/O. Its shell is package
// gateway. It has two halves that may run at the same time: the inbound one
// (Handle, MayRead) belongs to whoever reads the socket; the outbound one (all
// that appends to the output) is under the shell's mutex. What both touch is
// atomic.
//
// It keeps nothing that MQTT 5 §4.1 lists as session state, and must not know
// listeners, links in use or other connections.
package conn
