// SPDX-License-Identifier: Apache-2.0

package host

import (
	"sync/atomic"

	"github.com/manormq/manor/services/broker/partition"
)

// counters are counted for ever, but for failing.
type counters struct {
	appends, committed, proposals, alarms atomic.Uint64
	groups, writes, pieces, snapshots     atomic.Uint64
	failing                               atomic.Int32 // goroutines whose newest write failed
}

// Stats is what a Host says of itself.
type Stats struct {
	// Serving, InSync and Followed count partitions: those that are served here, those
	// of them with as many replicas in sync as they should have, and those of others
	// that have a replica here.
	Serving, InSync, Followed int
	// Claiming are owned here and not yet served, Handing about to go elsewhere,
	// Alarmed stand still until an operator decides.
	Claiming, Handing, Alarmed int
	// Unowned are those without an entry, as far as this broker knows.
	Unowned int
	// All below are counted for ever: appends that were taken, those of them that were
	// committed, proposals of changes of the table, things that need an operator.
	Appends, Committed, Proposals, Alarms uint64
	// Groups were written, with so many Writes in them; Pieces and whole Snapshots
	// were sent.
	Groups, Writes, Pieces, Snapshots uint64
	// Failing says that the newest write failed: nothing is acknowledged meanwhile.
	Failing bool
}

// Stats counts.
func (h *Host) Stats() Stats {
	c := &h.counted
	s := Stats{
		Appends: c.appends.Load(), Committed: c.committed.Load(), Proposals: c.proposals.Load(), Alarms: c.alarms.Load(),
		Groups: c.groups.Load(), Writes: c.writes.Load(), Pieces: c.pieces.Load(), Snapshots: c.snapshots.Load(), Failing: c.failing.Load() > 0,
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range h.mu.rows {
		row := &h.mu.rows[i]
		switch h.mu.roles[i] {
		case partition.Claiming:
			s.Claiming++
		case partition.Handing:
			s.Handing++
		case partition.Alarmed:
			s.Alarmed++
		case partition.Serving, partition.Following:
		}
		switch e := &row.Table.Entry; {
		case row.Serving:
			s.Serving++
			if len(e.InSync) >= h.config.Replicas(partition.ID(i)) {
				s.InSync++
			}
		case row.Table.Revision == 0:
			s.Unowned++
		case e.Owner != h.config.Self && e.Holds(h.config.Self):
			s.Followed++
		}
	}
	return s
}
