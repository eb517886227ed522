// SPDX-License-Identifier: Apache-2.0

// Package routes is the key space of routes in the replicated metadata: which
// partitions have subscriptions to which filters, and how many members of shared
// ones. The owner of a partition writes them, with the epoch under which it owns
// it as their rank; every broker has them told to its shards.
//
//	key   u8 version (1) | u16 partition | u8 length | tenant | filter or $share/NAME/FILTER
//	value of a filter    empty
//	value of a share     uvarint members | uvarint online | uvarint durable
//
// What is true of a key in a partition that this broker owns is asked of the owner
// (Gained), never remembered here: a key that it has and the space loses is written
// again, one that it has not is deleted. So leftovers of a former owner go, and so
// do its late writes, which the space has no tombstones to refuse.
//
// Routes owns one goroutine, its Run; a simulation calls Step instead. What waits to be written is one state for
// each key. The package must not know sessions, shards or who owns what.
package routes
