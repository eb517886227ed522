// SPDX-License-Identifier: Apache-2.0

// Package member knows which brokers a cluster has, where they are and how they do.
//
// A broker is a member from its first heartbeat until its heartbeat is deleted: it left
// (vmq-admin cluster leave), or was forced out. Heartbeats say that brokers are alive
// and at which addresses they take links; the links of this broker say it too. A member
// without either for SuspectAfter is suspected, after DownAfter it is down; it stays a
// member, since it may come back, at another address perhaps. What counts is this
// broker's own clock. While this broker does not see its own heartbeats come around the
// bus is away for it, and it judges by links only. VerneMQ's cluster show has the same:
// alive and suspected are "running", and a netsplit is a member that is down.
//
// Machine is pure; Members is its shell, which watches the bucket of the heartbeats and
// keeps what is known in a file, so that a broker that starts while the bus is away
// finds the others.
//
// Who leaves stays told in the bucket by a tombstone (Leave). It stands for the broker's
// old store: nothing in it counts any more, and the name may be another broker's. A
// broker that finds its own must reset its store, as must one whose metadata says
// metadata.ErrRetired, which is the same told by the other members where the bus is
// away, and then calls Return. Heartbeats of a name with a tombstone are not believed.
//
// Members owns the goroutines of Run. The package must not know partitions' tables,
// sessions or messages.
package member
