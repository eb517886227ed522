// SPDX-License-Identifier: Apache-2.0

package member

import (
	"maps"
	"slices"
	"strings"

	"github.com/manormq/manor/services/broker/placement"
)

// Machine are the members of a cluster as one broker sees them. It is owned by one
// goroutine, reads no clock and does no I/O. What a step has changed is added to the
// Effects that it is given.
type Machine struct {
	self   string
	now    int64 // of the caller, which may be set back
	clock  int64 // steps forwards only
	synced bool
	// around is when this broker's own heartbeat moved last, -BusSilent before it did.
	around  int64
	members map[string]*tracked
	// linked are the brokers to which there is a link, members or not.
	linked map[string]bool
	// gone are the names with a tombstone.
	gone map[string]bool
}

// tracked is a member and what was heard of it. Times are of Machine.clock.
type tracked struct {
	Member
	count  uint64 // of the newest heartbeat
	beaten bool   // count is one
	moved  int64  // when the heartbeat moved last, or the start
	cut    int64  // when the link was lost, or the start
}

// Effects are what steps have changed, for the caller to act on in this order.
type Effects struct {
	// Retired says that this broker was given up by the others: it must stop, reset its
	// store and call Return before it goes on.
	Retired bool
	// Left are those that are no members any more, in the order of their leaving.
	Left []string
	// Changed are the names of new members and of those of which State or anything
	// else has changed, in no order, each perhaps twice.
	Changed []string
	// Peers says that Machine.Peers has changed.
	Peers bool
	// Save says that what the file keeps has changed.
	Save bool
}

// New makes a machine of the broker self, which knows the members known from earlier,
// at the time now in milliseconds.
func New(self string, known []Member, now int64) *Machine {
	m := &Machine{self: self, now: now, around: -BusSilent, members: make(map[string]*tracked), linked: make(map[string]bool), gone: make(map[string]bool)}
	for _, k := range known {
		if k.Name != self {
			m.add(k.Name).Member = Member{Name: k.Name, Cluster: k.Cluster, Links: k.Links, Zone: k.Zone, Version: k.Version, Since: now}
		}
	}
	return m
}

// add makes a member of which nothing is heard yet: its ages begin now.
func (m *Machine) add(name string) *tracked {
	t := &tracked{Member: Member{Name: name, Since: m.now}, moved: m.clock, cut: m.clock}
	m.members[name] = t
	return t
}

// At tells the time, in milliseconds. Only its steps forwards count.
func (m *Machine) At(now int64, out *Effects) {
	if now > m.now {
		m.clock += now - m.now
	}
	m.now = now
	for _, t := range m.members {
		m.judge(t, out)
	}
}

// Beat tells the heartbeat of a broker that is in the bucket, and is told again
// whenever it was written.
func (m *Machine) Beat(name string, b placement.Beat, out *Effects) {
	if m.gone[name] {
		return
	}
	t, is := m.members[name]
	if !is {
		t = m.add(name)
	}
	before := t.Member
	t.Cluster, t.Links, t.Zone, t.Version, t.Draining = b.Cluster, b.Links, b.Zone, b.Version, b.Draining
	t.Stopping, t.Starting = b.Stopping && !b.Busy, b.Stopping && b.Busy
	t.Labels = strings.Join(b.Labels, ",")
	if !is || !before.sameButState(&t.Member) {
		out.Changed = append(out.Changed, name)
		out.Save = out.Save || name != m.self
		out.Peers = out.Peers || name != m.self && before.Cluster != t.Cluster
	}
	// What was there when the watch began may be of a broker that died long ago: the
	// next one says more.
	if moved := t.count != b.Count && (t.beaten || m.synced); moved {
		t.moved, t.beaten = m.clock, true
		if name == m.self {
			m.around = m.clock
		}
		m.be(t, Alive, out)
	}
	t.count, t.beaten = b.Count, true
	m.judge(t, out)
}

// BeatGone tells that the heartbeat of a broker was deleted: it has left.
func (m *Machine) BeatGone(name string, out *Effects) {
	t := m.members[name]
	if t == nil {
		return
	}
	delete(m.members, name)
	if name == m.self {
		return // it is written again, or a tombstone says why not
	}
	out.Left = append(out.Left, name)
	out.Save = true
	out.Peers = out.Peers || t.Cluster != ""
}

// Tombstone tells that a broker was given up, or that it is no more (there is false).
func (m *Machine) Tombstone(name string, there bool, out *Effects) {
	if !there {
		delete(m.gone, name)
		return
	}
	if m.gone[name] {
		return
	}
	m.gone[name] = true
	m.BeatGone(name, out)
	out.Retired = out.Retired || name == m.self
}

// Synced tells that all was told that was in the bucket when its watch began. That a
// member's heartbeat was not is no leaving: the bucket may be a new one.
func (m *Machine) Synced() { m.synced = true }

// Linked tells that what is sent to a broker reaches it, or does not any more.
func (m *Machine) Linked(name string, up bool, out *Effects) {
	if up {
		m.linked[name] = true
	} else {
		delete(m.linked, name)
	}
	t := m.members[name]
	if t == nil {
		return
	}
	if up {
		m.be(t, Alive, out)
	} else {
		t.cut = m.clock
	}
}

// BusUp reports whether the bus can be reached: this broker's own heartbeat came around
// a moment ago.
func (m *Machine) BusUp() bool { return m.clock-m.around < BusSilent }

// judge has t be what it is by what was heard of it last. While the bus is away no
// heartbeat moves, so that links alone count.
func (m *Machine) judge(t *tracked, out *Effects) {
	if m.linked[t.Name] || t.Name == m.self {
		m.be(t, Alive, out)
		return
	}
	switch silence := m.clock - max(t.moved, t.cut); {
	case silence >= DownAfter:
		m.be(t, Down, out)
	case silence >= SuspectAfter && t.State == Alive:
		m.be(t, Suspected, out)
	}
}

func (m *Machine) be(t *tracked, s State, out *Effects) {
	if t.State != s {
		t.State, t.Since = s, m.now
		out.Changed = append(out.Changed, t.Name)
	}
}

// Members are all members, this broker included once its heartbeat was seen, in the
// order of their names.
func (m *Machine) Members() []Member {
	out := make([]Member, 0, len(m.members))
	for _, name := range slices.Sorted(maps.Keys(m.members)) {
		out = append(out, m.members[name].Member)
	}
	return out
}

// Peers are the other members whose addresses are known: where the Mesh is to have
// links, whatever their state.
func (m *Machine) Peers() map[string]string {
	out := make(map[string]string)
	for name, t := range m.members {
		if name != m.self && t.Cluster != "" {
			out[name] = t.Cluster
		}
	}
	return out
}
