// SPDX-License-Identifier: Apache-2.0

// Package kv is the seam to ordered key-value storage: what a broker asks of
// the store that holds its sessions, queues and retained messages. The engines
// are kv/leveldb (the disk), kv/mem (tests, with a crash mode) and kv/faulty
// (fails by script); kv/kvtest holds them to one behaviour.
//
// A Store gives atomic batches, point reads and ordered scans. It has no
// transactions that read, since a shard owns its keys, and no merge operators.
//
// The package owns no goroutine and knows no key of any other package.
package kv
