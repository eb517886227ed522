// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/services/broker/cluster"
	"github.com/manormq/manor/services/broker/partition"
)

// Cluster is what a Set has of the other brokers. Its methods are called
// concurrently and must not wait.
type Cluster interface {
	// Self is the name of this broker.
	Self() string
	// Owner is the broker that a partition belongs to as far as is known, empty for
	// none, and the epoch of that.
	Owner(partition.ID) (name string, epoch uint64)
	// Cell is the record of a tenant's partitions. Place is that of a tenant that comes,
	// of m partitions by its plan; 0 is all.
	Cell(tenant string) Cell
	Place(tenant string, m int) Cell
	// Append is that of a host.Host.
	Append(p partition.ID, epoch uint64, batch []byte, done func(error))
	// Brokers are the other brokers that own partitions, and Table is all that is
	// told to gateways.
	Brokers() []string
	Table() *link.TableUpdate
	// Send is Enqueue of a cluster.Mesh. Ask has another broker answer a question for
	// its partitions; done is called once, unless there is an error at once.
	Send(to string, e *cluster.Enqueue, over cluster.LinkID, done func(cluster.Answer)) (cluster.LinkID, error)
	Ask(to string, q *link.Query, done func(*link.Answer, error)) error
	// Hand has another broker take what TakeHanded takes, which is not changed afterwards;
	// done is called once, with what it says, false if there is no answer. The error is as for Send.
	Hand(to string, b []byte, done func(ok bool)) error
	// AddRoute has all brokers know that a partition has subscriptions to a filter,
	// and calls reached once when those that can be reached do; RemoveRoute has them
	// forget it.
	AddRoute(tenant, filter string, p partition.ID, epoch uint64, reached func())
	// AwaitRoute calls reached when what AddRoute or SetGroup has said of a route is
	// known to those that can be reached.
	AwaitRoute(tenant, filter string, p partition.ID, reached func())
	RemoveRoute(tenant, filter string, p partition.ID, epoch uint64)
	// SetGroup has all brokers know what members a partition has of a shared
	// subscription.
	SetGroup(tenant, key string, p partition.ID, epoch uint64, members, online, durable int)
	// Gaining says that the partition is about to be restored here.
	Gaining(p partition.ID, epoch uint64)
	// Gained says that the partition is served here and was restored; has tells whether
	// it has subscriptions to a filter, or members of $share/NAME/FILTER. It is called
	// at any time until Lost says that it is not served any more.
	Gained(p partition.ID, epoch uint64, has func(tenant, filter string) bool)
	Lost(p partition.ID, epoch uint64)
	// Recheck has what others say of a route told again.
	Recheck(tenant, filter string, p partition.ID)
}

// append has the open batch of a partition become its next record. Where nothing
// was written, those who wait do so for the record before.
func (l *ledger) append(size int64) {
	ticket := l.ticket
	if l.batch.Len() == 0 {
		l.shard.unsaved.Add(-size)
		for i := len(l.waiters) - 1; i >= l.first && l.waiters[i].ticket == ticket; i-- {
			l.waiters[i].ticket--
		}
		l.ticket-- // submit counts it up again
		if l.durable == l.ticket {
			l.shard.leave(l.shard, item{kind: itemCommitted, ledger: l, ticket: l.durable})
		}
		return
	}
	b := l.batch
	l.batch = new(kv.Batch)
	l.shard.set.cluster.Append(l.space.id, l.space.epoch, b.Encoded(), func(err error) {
		l.shard.unsaved.Add(-size)
		l.shard.post(item{kind: itemCommitted, ledger: l, ticket: ticket, failed: err != nil}, nil)
	})
}
