// SPDX-License-Identifier: Apache-2.0

package shard

import "sync/atomic"

// dropReason is why a message did not reach a session.
type dropReason uint8

const (
	dropQueueFull dropReason = iota
	dropSlow
	dropExpired
	dropTooLarge
	dropNoMember
	dropUnreadable
	dropRetainedFull
	dropRetainedExpired
	dropOverload
	dropUnserved
	dropRetainedRate
	dropFanOut
	dropStorage
	dropReasons
)

var dropNames = [dropReasons]string{
	dropQueueFull:       "queue_full",
	dropSlow:            "qos0_without_credit",
	dropExpired:         "expired",
	dropTooLarge:        "client_maximum_packet_size",
	dropNoMember:        "shared_group_without_member",
	dropUnreadable:      "store_unreadable",
	dropRetainedFull:    "retained_quota",
	dropRetainedExpired: "retained_expired",
	dropOverload:        "overload",
	dropUnserved:        "partition_unserved",
	dropRetainedRate:    "retained_rate",
	dropFanOut:          "fan_out",
	dropStorage:         "storage_bytes",
}

func (r dropReason) String() string { return dropNames[r] }

// Stats are the counters of one shard. Everyone may read them; only the turn
// writes.
type Stats struct {
	QueueIn, QueueOut, Matches, Unhandled atomic.Uint64
	TakeOvers, Refused, SubscribeRefused  atomic.Uint64
	Redelivered, Stuck, Unwritten         atomic.Uint64
	// Resumed are the connections that have come here because their partition has moved
	// as planned, Unresumed those that came in vain; Unquiet could not go on elsewhere
	// and were closed.
	Resumed, Unresumed, Unquiet atomic.Uint64
	// Held were not taken by the broker of their partition and wait to be sent again.
	Held atomic.Uint64
	// HandedOff were acknowledged although a partition could not be given them yet;
	// HandOffFull were not, since as much was as may be.
	HandedOff, HandOffFull atomic.Uint64
	// Handed are the sessions that were handed to other partitions, and HandedRetained the
	// retained messages.
	Handed, HandedRetained atomic.Uint64
	// Paced is how often the sending of retained messages had to pause (retained_subscribe).
	Paced atomic.Uint64
	// Guests are guest sessions that were opened.
	Guests atomic.Uint64
	drops  [dropReasons]atomic.Uint64
}

func (s *Stats) dropped(r dropReason) { s.drops[r].Add(1) }

// Drops calls f for each reason for which messages are dropped.
func (s *Stats) Drops(f func(reason string, n uint64)) {
	for i := range s.drops {
		f(dropNames[i], s.drops[i].Load())
	}
}
