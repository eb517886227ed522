// SPDX-License-Identifier: Apache-2.0

// Package partition knows what a partition is on disk, and how its replicas stay
// one: the layout of its keys, its last (epoch, n), the committer that makes the
// batches of all partitions of a broker durable in groups, and the machine of a
// replica.
//
// The partition is the unit of everything that lasts (architecture, §4a): it
// has one key prefix, belongs to one shard, and has one owner among the
// brokers. With one replica there is no log beside the state: a batch is
// written directly and carries last = (epoch, n).
//
// A Replica is one broker's part in one partition, as owner or follower. Its Step
// takes an Event and says in Effects what to write, send, load and propose. It is
// read in this order: commit.go (the rule), entry.go (the table), owner.go and
// peer.go (append, and what each follower gets), follow.go, elect.go, table.go
// (changes of the table and their outcomes); store.go does to a kv.Store what the
// Effects ask for.
//
//	          Append                 Answer
//	shard ───────────▶ Replica ◀───────────── peer's Replica
//	  ▲   Committed(n)   │  │  Probe, Records, Piece  ▲
//	  └──────────────────┘  └─────────────────────────┘
//	         Write, Load │ ▲ Written, Loaded        │ ▲ Proposed, TableRead
//	                     ▼ │                Propose ▼ │
//	                     disk                      table
//
// The Committer owns one goroutine, its Run. All else is pure, but for store.go,
// which reads and writes the store that it is given. The package must not know
// sessions, messages or links: it moves bytes.
package partition
