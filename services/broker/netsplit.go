// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"slices"
	"sync"

	"github.com/manormq/manor/services/broker/member"
)

// netsplits counts as VerneMQ does how often the cluster stopped being ready, which it
// is while every member is alive, and how often it was again. It may be used
// concurrently; the zero value has not been ready yet.
type netsplits struct {
	mu                 sync.Mutex
	ready              bool   // guarded by mu
	detected, resolved uint64 // guarded by mu
}

// look takes what is known of the members now.
func (n *netsplits) look(members []member.Member) {
	ready := !slices.ContainsFunc(members, func(m member.Member) bool { return m.State != member.Alive })
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.ready && !ready:
		n.detected++
	case !n.ready && ready && n.resolved < n.detected:
		n.resolved++
	}
	n.ready = ready
}

func (n *netsplits) counts() (detected, resolved uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.detected, n.resolved
}
