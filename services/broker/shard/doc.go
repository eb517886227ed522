// SPDX-License-Identifier: Apache-2.0

// Package shard runs the turns of a broker. A Shard owns the sessions, queues
// and retained messages of its partitions: there is no lock and no goroutine
// for a session. A shard is a turn, not a thread: who finds it free runs it
// then and there, who finds it busy leaves the work in its mailbox for whoever
// runs it.
//
// One turn is: drain the mailbox, step each session, hand one batch to the
// committer, hand one batch to each link touched. While a goroutine runs a
// turn it runs no other and never waits; it leaves work for another shard in
// that one's mailbox (the order there is the order of delivery), notes it, and
// tries the noted shards after it has let go. Sockets are written last, by
// link.Gateway.Flush, outside every turn, but for what has become too much to
// keep in memory until then.
//
// Goroutines: one worker for each shard, for work that nobody stands ready to
// run, and one ticker, all started by Set.Run; in a cluster one more while
// subscriptions wait for retained messages of other brokers. The committer posts what is
// committed to the mailboxes and runs nothing.
//
// A partition that moves as planned takes the connections of its clients along:
// cede.go (at the old owner), carry.go (the record of a connection), await.go (at
// the new one).
//
// A tenant that goes to other partitions stands still meanwhile: stop.go (its connections
// are let go of), mover.go (when nothing of it is under way), hand.go and handed.go (its
// sessions and retained messages cross).
//
// The package owns the key kinds s, f, n, i, o, a, p, m and h.
package shard
