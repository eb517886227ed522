// SPDX-License-Identifier: Apache-2.0

// Package queue remembers the messages that wait for a session, and the bodies
// of those that it has sent and that are not acknowledged. A queue of a stored
// session has every entry in the store and the next few in memory too; the
// queue of a session that ends with its connection holds up to MemoryLimit in
// memory and spills what comes beyond to the store.
//
// Queues and their Space are owned by the shard of their partition and not safe
// for concurrent use. Nothing here owns a goroutine. Writes go into the turn's
// batch; what was appended is read back only once its batch was committed.
// The package owns the key kinds q, b and c.
package queue
