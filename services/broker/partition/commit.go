// SPDX-License-Identifier: Apache-2.0

package partition

import "slices"

// The commit rule (architecture, §4a). A record is committed when every broker
// that may follow the owner without asking anyone has it on its disk. Who may
// follow is the ISR of the table; the owner knows only its own copy of it and
// what it has itself proposed since, so it requires
//
//   - the ISR of its copy: a leaver until the outcome of its leaving is known;
//   - the ISR of every change proposed at the copy's revision: a newcomer from
//     before its proposal, and until the revision has moved, since a proposal
//     without an answer may yet be carried out;
//   - all replicas of the entry, if an earlier run left it: what that proposed is
//     not known, but nobody joins an ISR who was not a replica before (kept.go).
//
// Another owner takes its place only as a member of that ISR, by a change of the
// same revision, and so has every record that was committed. A member that has
// stored a higher epoch answers nothing of a lower one: nothing is committed any
// more that the new owner does not have.

// requires reports whether a commit needs b.
func (r *Replica) requires(b Broker) bool {
	if r.table.IsInSync(b) || r.table.asFound && r.table.Holds(b) {
		return true
	}
	return slices.ContainsFunc(r.table.pending, func(e Entry) bool { return e.IsInSync(b) })
}

// mayCommit reports whether the replica knows of no higher epoch than that in
// which it is the owner.
func (r *Replica) mayCommit() bool {
	return (r.role == Serving || r.role == Handing) && r.table.Epoch == r.state.Epoch
}

// commit finds what everybody required has.
func (r *Replica) commit(fx *Effects) {
	if !r.mayCommit() {
		return
	}
	n := r.durable.last.N
	for i := range r.owner.peers {
		if p := &r.owner.peers[i]; r.requires(p.broker) {
			n = min(n, p.match)
		}
	}
	if n > r.owner.committed {
		r.owner.committed = n
		fx.Committed = n
	}
}

// need is up to where a copy must reach to hold everything that may have been
// acknowledged, by this owner or by one before it.
func (r *Replica) need() uint64 { return max(r.owner.committed, r.owner.claimed) }
