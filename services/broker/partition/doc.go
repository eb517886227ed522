// SPDX-License-Identifier: Apache-2.0

// Package partition knows what a partition is on disk: the layout of its keys,
// its last (epoch, n), and the committer that makes the batches of all
// partitions of a broker durable in groups.
//
// The partition is the unit of everything that lasts (architecture, §4a): it
// has one key prefix, belongs to one shard, and has one owner among the
// brokers. With one replica there is no log beside the state: a batch is
// written directly and carries last = (epoch, n).
//
// The Committer owns one goroutine, its Run. The keys are pure functions. The
// package must not know sessions, messages or links: it moves bytes.
package partition
