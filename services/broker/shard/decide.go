// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"encoding/binary"

	"github.com/manormq/manor/services/broker/partition"
)

// Whether a tenant that is Leaving goes on or stays where it is must be said once, whoever dies:
// what is handed over once that it goes on is lost if it stays. The log of the first partition of
// its list says it (docs/adr/0048): it has one owner who can commit, and each next owner has what
// was committed. Each partition that takes what is handed over says it too, in the batch with
// that: if the first one is lost with all its copies, what was handed is not left behind.

// Course is what is decided of a tenant that is Leaving.
type Course uint8

// The courses. For one record of a tenant there is one Course at most but Undecided.
const (
	// Undecided: nothing of the tenant has been handed over.
	Undecided Course = iota
	// Onward: all brokers were quiet at one time, and what belongs to other partitions is
	// handed over.
	Onward
	// Back: the tenant stays in its list.
	Back
)

// courseOf is the Course for a record, which counts once it is committed.
type courseOf struct {
	revision  uint64
	course    Course
	committed bool
}

// courseSize is the length of a stored one: version u8, revision u64, course u8.
const courseSize = 10

// Decide has the course of a tenant that is Leaving be decided, if this broker serves the first
// partition of the list and nothing is decided yet for that revision of the record. It does not
// wait; what is decided, by this call or another, Relocate says when it is committed.
func (st *Set) Decide(tenant string, revision uint64, course Course) {
	st.DecideThen(tenant, revision, course, nil)
}

// DecideThen is Decide, and calls decided, once, by any goroutine, when this call's course is
// committed: not if another call has decided, whatever it is. It must not wait; nil is nothing to do.
func (st *Set) DecideThen(tenant string, revision uint64, course Course, decided func()) {
	t := st.Tenant(tenant)
	c := t.cell.Load()
	if st.cluster == nil || c.stage != Leaving || c.revision != revision {
		return
	}
	s := st.shardOf(c.list[0])
	s.call(func() {
		p := s.spaces[c.list[0]]
		if p == nil || p.ceding != nil || t.cell.Load() != c {
			return
		}
		if d := p.courses[t]; d != nil && d.revision == revision {
			return
		}
		s.keepCell(t, p)
		s.keepCourse(t, p, &courseOf{revision: revision, course: course}, decided)
	})
}

// keepCourse has a partition keep a course, which is said when it is committed there, and
// calls kept then, if that is not nil. If the same is kept already nothing is written.
func (s *Shard) keepCourse(t *Tenant, p *space, d *courseOf, kept func()) {
	if was := p.courses[t]; was == nil || was.revision != d.revision || was.course != d.course {
		p.course(t, d)
		course, b := d.course, binary.BigEndian.AppendUint64([]byte{recordVersion}, d.revision)
		s.batch(p).Put(partition.KeyNamed(nil, p.id, partition.KindCourse, t.id, ""), append(b, byte(course)))
		s.wait(p.ledger, waiter{after: func() {
			d.committed = true
			if kept != nil {
				kept()
			}
		}})
	}
}

func (p *space) course(t *Tenant, d *courseOf) {
	if p.courses == nil {
		p.courses = make(map[*Tenant]*courseOf)
	}
	p.courses[t] = d
}

// sayCourse adds what is decided of a tenant that is Leaving, as partitions here know it. Where two
// know different courses the first partition was lost, and decided again when something
// was handed over: that is not undone.
func (s *Shard) sayCourse(t *Tenant, c *cell, r *Relocation) {
	for _, id := range s.both(c) {
		p := s.spaces[id]
		if p == nil {
			continue
		}
		if d := p.courses[t]; d != nil && d.committed && d.revision == c.revision && r.Course != Onward {
			r.Course = d.course
		}
	}
}

// forgetCourse forgets what was decided of a tenant that does not move any more.
func (s *Shard) forgetCourse(t *Tenant, p *space) {
	if p.courses[t] != nil {
		delete(p.courses, t)
		s.batch(p).Delete(partition.KeyNamed(nil, p.id, partition.KindCourse, t.id, ""))
	}
}

// restoreCourses reads what Decide wrote; all of it is committed.
func (s *Shard) restoreCourses(p *space) error {
	if s.set.cluster == nil {
		return nil
	}
	return s.scan(p, partition.KindCourse, func(key, value []byte) error {
		tenant, _, err := partition.SplitNamed(key)
		if err != nil {
			return err
		}
		if len(value) != courseSize || value[0] != recordVersion || Course(value[9]) == Undecided || Course(value[9]) > Back {
			return errRecord
		}
		t := s.set.Tenant(tenant)
		p.course(t, &courseOf{revision: binary.BigEndian.Uint64(value[1:]), course: Course(value[9]), committed: true})
		if !t.moves() {
			s.forgetCourse(t, p)
		}
		return nil
	})
}
