// SPDX-License-Identifier: Apache-2.0

package check

import (
	"fmt"

	"github.com/manormq/manor/services/broker/partition"
)

// Append is one append of a client.
type Append struct {
	Partition partition.ID
	// Tag names it, 1 and up in the order of submission over all partitions.
	Tag    uint64
	Client int
	// Seq counts those of one client and partition, from 1.
	Seq uint64
	// At is where the owner put it.
	At    partition.Last
	Acked bool
	// AckedAt is when it was, in microseconds of the world's time.
	AckedAt int64
	// Lost says that it was acknowledged, and that no replica in sync had it any
	// more when a new owner began.
	Lost bool
}

// History is what happened, and what of it is against a promise. It is owned by
// one goroutine.
type History struct {
	Appends []*Append
	// Appended counts the batches of sessions, which no Append stands for.
	Appended int
	// Acked and Lost count appends.
	Acked, Lost int

	owners  map[epochOf]partition.Broker
	entries map[partition.ID][]partition.Entry
	// ackedUnder is the newest epoch under which a partition acknowledged.
	ackedUnder map[partition.ID]uint64
	// acks is when a partition acknowledged last.
	acks map[partition.ID]int64
	// intact are the copies that joined the ISR and were not lost or thrown away
	// since. That one was caught up again in its place is not counted.
	intact map[copyOf]bool
	broken []string
}

// unsynced is for how long a power cut may take, in microseconds, what only one replica
// was to have.
const unsynced = 300_000

// stale is in microseconds; what confirmed the epoch of an owner may have been on its way
// for a part of it.
const stale = 5_000_000

type copyOf struct {
	id partition.ID
	b  partition.Broker
}

type epochOf struct {
	id    partition.ID
	epoch uint64
}

// New returns an empty History.
func New() *History {
	return &History{
		owners: map[epochOf]partition.Broker{}, entries: map[partition.ID][]partition.Entry{},
		ackedUnder: map[partition.ID]uint64{}, acks: map[partition.ID]int64{}, intact: map[copyOf]bool{},
	}
}

// Broken returns what is against the promises, in the order in which it happened.
func (h *History) Broken() []string { return h.broken }

// Break notes something that is against a promise.
func (h *History) Break(format string, args ...any) {
	if len(h.broken) < 20 {
		h.broken = append(h.broken, fmt.Sprintf(format, args...))
	}
}

// Submit notes that a client appended at an owner.
func (h *History) Submit(a *Append) { h.Appends = append(h.Appends, a) }

// Ack notes that broker b acknowledged a, as the owner of epoch, at the time now: no
// other may have under that epoch.
func (h *History) Ack(a *Append, b partition.Broker, epoch uint64, now int64) {
	if a.Acked {
		h.Break("append %d of partition %d is acknowledged twice", a.Tag, a.Partition)
		return
	}
	a.Acked, a.AckedAt = true, now
	h.acks[a.Partition] = now
	h.Acked++
	h.serves(a.Partition, b, epoch)
	h.ackedUnder[a.Partition] = max(h.ackedUnder[a.Partition], epoch)
}

func (h *History) serves(id partition.ID, b partition.Broker, epoch uint64) {
	k := epochOf{id, epoch}
	if o, ok := h.owners[k]; ok && o != b {
		h.Break("%s and %s both serve partition %d under epoch %d", o, b, id, epoch)
	}
	h.owners[k] = b
}

// Changed notes a change of the table. Its epochs never go back or skip.
func (h *History) Changed(id partition.ID, e partition.Entry) {
	list := h.entries[id]
	if n := len(list); n > 0 && e.Epoch != list[n-1].Epoch+1 || n == 0 && e.Epoch != 1 {
		h.Break("the entry of partition %d went from epoch %d to %d", id, h.epoch(id), e.Epoch)
	}
	for _, b := range e.InSync {
		if len(list) == 0 || !list[len(list)-1].IsInSync(b) {
			h.intact[copyOf{id, b}] = true
		}
	}
	h.entries[id] = append(list, e)
}

// Damaged notes that b lost its disk.
func (h *History) Damaged(b partition.Broker) {
	for k := range h.intact {
		if k.b == b {
			delete(h.intact, k)
		}
	}
}

// Intact reports whether b has what it had when it joined the replicas in sync of a partition, and
// all that came since.
func (h *History) Intact(id partition.ID, b partition.Broker) bool { return h.intact[copyOf{id, b}] }

// Wiped notes that b threw its copy away, which none that is in sync may.
func (h *History) Wiped(id partition.ID, b partition.Broker) {
	if list := h.entries[id]; h.intact[copyOf{id, b}] && list[len(list)-1].IsInSync(b) {
		h.Break("%s throws away its copy of partition %d, which is in sync", b, id)
	}
	delete(h.intact, copyOf{id, b})
}

// Entries are those that a partition had.
func (h *History) Entries(id partition.ID) []partition.Entry { return h.entries[id] }

func (h *History) epoch(id partition.ID) uint64 {
	if list := h.entries[id]; len(list) > 0 {
		return list[len(list)-1].Epoch
	}
	return 0
}

// Serve notes that b begins to serve a partition under epoch. has reports whether a
// broker's disk has an append. Whatever was acknowledged must be there, unless none
// of the ISR has it from which this owner comes. An owner that was deposed a moment ago
// may not know it; but it may not begin to serve when another has acknowledged under a
// higher epoch for as long as stale.
func (h *History) Serve(id partition.ID, b partition.Broker, epoch uint64, now int64, has func(partition.Broker, *Append) bool) {
	h.serves(id, b, epoch)
	found, lost := 0, 0
	for _, a := range h.Appends {
		if a.Partition != id || !a.Acked || a.Lost {
			continue
		}
		if a.At.Epoch > epoch {
			if now-a.AckedAt > stale {
				h.Break("%s begins to serve partition %d under epoch %d, %d ms after append %d was acknowledged under epoch %d",
					b, id, epoch, (now-a.AckedAt)/1000, a.Tag, a.At.Epoch)
			}
			continue
		}
		if has(b, a) {
			found++
			continue
		}
		holder := partition.Broker("")
		for _, e := range h.entries[id] {
			if e.Epoch+1 < epoch || e.Epoch < h.ackedUnder[id] || e.Epoch > epoch {
				continue // who had left the ISR before is promised nothing
			}
			for _, m := range e.InSync {
				if h.intact[copyOf{id, m}] && has(m, a) {
					holder = m
				}
			}
		}
		if holder != "" {
			h.Break("%s begins to serve partition %d under epoch %d without append %d %v, which was acknowledged and which %s, in sync, has",
				b, id, epoch, a.Tag, a.At, holder)
		}
		a.Lost = true
		h.Lost++
		if h.acks[id]-a.AckedAt > unsynced {
			lost++
		}
	}
	if found == 0 && lost > 20 && !h.abandoned(id) {
		h.Break("%s begins to serve partition %d under epoch %d with nothing of what was acknowledged, which nobody gave up", b, id, epoch)
	}
}

// abandoned reports whether an operator gave up what a partition had acknowledged.
func (h *History) abandoned(id partition.ID) bool {
	for _, e := range h.entries[id] {
		if e.Abandoned && e.Epoch > h.ackedUnder[id] {
			return true
		}
	}
	return false
}

// Read notes that a client read from an owner: it must find what was acknowledged.
func (h *History) Read(b partition.Broker, a *Append, found bool) {
	if a.Acked && !a.Lost && !found {
		h.Break("a read at %s does not find append %d %v of partition %d", b, a.Tag, a.At, a.Partition)
	}
}

// Replica is what one broker has of a partition in the end.
type Replica struct {
	Broker partition.Broker
	// Content is everything but the log and the replica's state.
	Content string
	Last    partition.Last
}

// Equal holds the replicas of a partition to one content.
func (h *History) Equal(id partition.ID, replicas []Replica) {
	for _, r := range replicas[1:] {
		if first := replicas[0]; r.Last != first.Last || r.Content != first.Content {
			h.Break("partition %d: %s has %v and %s has %v, or not the same under it", id, first.Broker, first.Last, r.Broker, r.Last)
		}
	}
}

// Agree holds replicas with the same last record to one content.
func (h *History) Agree(id partition.ID, replicas []Replica) {
	for i, r := range replicas {
		for _, o := range replicas[:i] {
			if r.Last == o.Last && r.Content != o.Content {
				h.Break("partition %d: %s and %s both have %v, and not the same under it", id, o.Broker, r.Broker, r.Last)
			}
		}
	}
}

// End judges the whole: applied are the tags that the partition holds in the end,
// and newest the highest seq of a client that it says it has applied last.
func (h *History) End(id partition.ID, applied map[uint64]bool, newest map[int]uint64) {
	last := map[int]uint64{}
	at := map[int]partition.Last{}
	for _, a := range h.Appends {
		if a.Partition != id {
			continue
		}
		if a.Acked && !a.Lost && !applied[a.Tag] {
			h.Break("append %d %v of partition %d was acknowledged and is not there in the end", a.Tag, a.At, id)
		}
		if !applied[a.Tag] {
			continue
		}
		if a.At.Before(at[a.Client]) {
			h.Break("partition %d has append %d of client %d at %v, before an earlier one at %v", id, a.Tag, a.Client, a.At, at[a.Client])
		}
		last[a.Client], at[a.Client] = a.Seq, a.At
	}
	for c, seq := range last {
		if newest[c] != seq {
			h.Break("partition %d applied %d of client %d last, expected %d", id, newest[c], c, seq)
		}
	}
}
