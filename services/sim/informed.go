// SPDX-License-Identifier: Apache-2.0

package sim

// When a node may serve by what it knows itself: informWait and informWaitFresh of package broker.
const (
	informWait      = 5 * second
	informWaitFresh = 60 * second
)

// informed is host.Config.Informed, by the rule of package broker (docs/adr/0053): whoever publishes to
// a node that does not know the routes would be told that nobody wants it.
func (n *node) informed() bool {
	if n.knows || n.station == nil {
		return true
	}
	wait := int64(informWait)
	if n.fresh {
		wait = informWaitFresh
	}
	if n.knows = n.station.meta.synced && (!n.fresh || n.station.meta.metAll) || n.w.now-n.startedAt >= wait; n.knows {
		n.w.note("informed", n.name)
	}
	return n.knows
}

// noteInformed keeps that the disk has had what the others know.
func (n *node) noteInformed() {
	if n.station != nil && n.station.meta.metAll {
		n.fresh = false
	}
}
