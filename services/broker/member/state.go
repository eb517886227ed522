// SPDX-License-Identifier: Apache-2.0

package member

import "fmt"

// State is how a member does, as this broker sees it.
type State uint8

// The states of a member.
const (
	// Suspected: nothing was heard of it for SuspectAfter, or not yet since the start.
	Suspected State = iota
	// Alive: its heartbeat moves, or there is a link to it.
	Alive
	// Down: nothing was heard of it for DownAfter.
	Down
)

// String is the word that people read.
func (s State) String() string {
	switch s {
	case Suspected:
		return "suspected"
	case Alive:
		return "alive"
	case Down:
		return "down"
	default:
		return fmt.Sprintf("State(%d)", uint8(s))
	}
}

// After so many milliseconds without a heartbeat and without a link a member is
// suspected, or down.
const (
	SuspectAfter = 3_000
	DownAfter    = 10_000
)

// BusSilent is for how many milliseconds this broker's own heartbeat may not come
// around before the bus is away for it.
const BusSilent = 2_500

// Member is a broker of the cluster.
type Member struct {
	// Name is that of its certificate, unique in the cluster.
	Name string
	// Cluster and Links are where it takes links of brokers, and of gateways: host:port,
	// or empty if it has not said.
	Cluster, Links string
	// Zone is where it runs; empty is nowhere in particular.
	Zone string
	// Labels are those of partitions that it takes, as its heartbeat has them, with commas
	// between; empty is none.
	Labels string
	// Version is that of its software; empty if it has not said.
	Version string
	// Draining says that it gives up its partitions, Stopping that it ends and is
	// expected back, Starting that it has begun and takes partitions a moment later.
	Draining, Stopping, Starting bool
	State                        State
	// Since is when State began: milliseconds of the clock that At is told, no earlier
	// than the start.
	Since int64
}

// sameButState reports whether two say the same of where the member is.
func (m *Member) sameButState(o *Member) bool {
	a, b := *m, *o
	a.State, a.Since, b.State, b.Since = 0, 0, 0, 0
	return a == b
}
