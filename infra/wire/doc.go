// SPDX-License-Identifier: Apache-2.0

// Package wire carries batches of bytes between two nodes over one connection:
// a preface that says who speaks which version, then batches each way, each
// with a length and a count in front. It does not know what a batch means;
// infra/link and the brokers' own links give it that.
//
// A Conn owns three goroutines while Run runs: one reads and hands over, one
// writes, one keeps the connection alive. Batches are gathered naturally: what
// is queued while a write is under way goes out with the next one, so a busy
// link batches more and an idle one waits for nothing.
//
// The layout is drawn in docs/wire/link.md. All integers are big endian.
package wire
