// SPDX-License-Identifier: Apache-2.0

// Package session is the machine behind MQTT 5 §4.1: what a session remembers
// and what it does about each thing that happens to it. It is pure: it reads no
// clock, owns no goroutine and does no I/O, and it speaks only infra/mqtt. The
// shard that owns a Session calls Step and carries the Effects out.
//
// The order of the effects is the protocol: what Save holds must be durable
// before an Out that says AfterCommit leaves, and before a publisher is told
// that its message was Routed, unless the delivery that it is about has been
// acknowledged meanwhile. The bodies of messages are not here: the session
// decides, the queue remembers. A message that waits is known by its queue
// sequence number.
package session
