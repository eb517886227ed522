// SPDX-License-Identifier: Apache-2.0

// Package placement decides which brokers should hold a partition, and which of
// them is its owner: rendezvous over the brokers whose heartbeats move, in
// different zones where zones are known, among those that accept the partition's
// label. Every broker runs the same Controller over the same table; the owner's
// carries its plan out, and where there is no entry yet the one that should own the
// partition makes it; a compare-and-set decides.
//
// Heartbeats (Watch) are judged by the watcher's own clock: what counts is for how
// long the value of a broker's key stood still here, never what time it tells.
//
// The package is pure: it owns no goroutine, reads no clock and does no I/O. It
// must not know how a partition is replicated, nor sessions or messages.
package placement
