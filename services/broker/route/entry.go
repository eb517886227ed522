// SPDX-License-Identifier: Apache-2.0

package route

import (
	"math/bits"
	"slices"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/route/share"
)

// Sub is one subscription of one session: what a delivery needs of it, in 16
// bytes. Its filter is where it stands.
type Sub[S comparable] struct {
	Session S
	ID      uint32
	QoS     mqtt.QoS
	NoLocal bool
	// Retained is Retain As Published.
	Retained bool
	Durable  bool
}

// SubOf is the subscription sub of a session.
func SubOf[S comparable](session S, sub *mqtt.Subscription, durable bool) Sub[S] {
	return Sub[S]{
		Session: session, ID: sub.ID, QoS: sub.QoS, NoLocal: sub.NoLocal, Retained: sub.RetainAsPublished, Durable: durable,
	}
}

// List are the subscriptions of one filter in one partition, in the order in
// which they came. It is owned by the partition's shard.
type List[S comparable] struct {
	Subs []Sub[S]
}

// Part says that a partition holds subscriptions.
type Part[S comparable] struct {
	// List is nil if another broker serves the partition: the part is far, and all
	// that is known here is that there are some.
	List *List[S]
	ID   partition.ID
	// Durable says that one of them outlives its connection, so that a message
	// of QoS 1 or 2 may have to be stored there. A far part has it always.
	Durable bool
	// magnitude is of the length of the List; see magnitudeOf.
	magnitude uint8
}

// magnitudeOf is 0 for a List of up to 3, 1 from 4 on, 2 from 8 on and so on.
func magnitudeOf(n int) uint8 { return uint8(max(bits.Len(uint(n))-2, 0)) }

// Count is about how many subscriptions there are: 1 for up to 3, and the power of two that
// is not more from there on. The List is its shard's to read, and this is for anyone.
func (p *Part[S]) Count() int {
	if p.magnitude == 0 {
		return 1
	}
	return 2 << p.magnitude
}

// Far reports whether another broker serves the partition.
func (p *Part[S]) Far() bool { return p.List == nil }

// Entry is what one filter leads to. It is immutable, but for the Lists. The nil
// Entry leads nowhere.
//
// Most filters have one subscription. Its List and its Part are in the Entry
// itself, which makes one object of 64 bytes of four with 150 together. An Entry
// with more adds the List of the partition for which it was made, and shares the
// others with the Entry before it.
type Entry[S comparable] struct {
	one  [1]Part[S] // the only part, if more is nil
	more *more[S]
	list List[S]
	sub  [1]Sub[S] // where list begins
}

type more[S comparable] struct {
	parts  []Part[S]
	groups []*share.Group[S]
}

// Parts are the partitions with subscriptions.
func (e *Entry[S]) Parts() []Part[S] {
	switch {
	case e == nil:
		return nil
	case e.more != nil:
		return e.more.parts
	}
	return e.one[:]
}

// Groups are the shared subscriptions.
func (e *Entry[S]) Groups() []*share.Group[S] {
	if e == nil || e.more == nil {
		return nil
	}
	return e.more.groups
}

// part returns the place of a partition in Parts, or -1.
func (e *Entry[S]) part(p partition.ID) int {
	for i, x := range e.Parts() {
		if x.ID == p {
			return i
		}
	}
	return -1
}

// withPart returns the Entry with the first subscription of a partition that is
// served here. It takes the place of the far part at i, if that is not -1.
func (e *Entry[S]) withPart(p partition.ID, i int, s Sub[S]) *Entry[S] {
	c := &Entry[S]{sub: [1]Sub[S]{s}}
	c.list.Subs = c.sub[:]
	c.one[0] = Part[S]{List: &c.list, ID: p, Durable: s.Durable}
	if e == nil || i >= 0 && e.more == nil {
		return c
	}
	c.more = &more[S]{parts: slices.Clone(e.Parts()), groups: e.Groups()}
	if i >= 0 {
		c.more.parts[i] = c.one[0]
	} else {
		c.more.parts = append(c.more.parts, c.one[0])
	}
	return c
}

// without returns the Entry without the part at i.
func (e *Entry[S]) without(i int) *Entry[S] {
	return e.with(slices.Delete(slices.Clone(e.Parts()), i, i+1), e.Groups())
}

// withFar returns the Entry with a far part for p, in place of the part at i if
// that is not -1.
func (e *Entry[S]) withFar(p partition.ID, i int) *Entry[S] {
	far := Part[S]{ID: p, Durable: true}
	parts := slices.Clone(e.Parts())
	if i >= 0 {
		parts[i] = far
	} else {
		parts = append(parts, far)
	}
	return e.with(parts, e.Groups())
}

// marked returns the Entry with Durable of a part as given, and its magnitude as it is.
func (e *Entry[S]) marked(i int, durable bool) *Entry[S] {
	x := e.Parts()[i]
	magnitude := magnitudeOf(len(x.List.Subs))
	if x.Durable == durable && x.magnitude == magnitude {
		return e
	}
	parts := slices.Clone(e.Parts())
	parts[i].Durable, parts[i].magnitude = durable, magnitude
	return e.with(parts, e.Groups())
}

// with returns an Entry of these, nil if there are none.
func (e *Entry[S]) with(parts []Part[S], groups []*share.Group[S]) *Entry[S] {
	switch {
	case len(groups) > 0 || len(parts) > 1:
		return &Entry[S]{more: &more[S]{parts: parts, groups: groups}}
	case len(parts) == 1:
		return &Entry[S]{one: [1]Part[S]{parts[0]}}
	}
	return nil
}

func (l *List[S]) put(s Sub[S]) {
	for i := range l.Subs {
		if l.Subs[i].Session == s.Session {
			l.Subs[i] = s
			return
		}
	}
	l.Subs = append(l.Subs, s)
}

func (l *List[S]) remove(session S) {
	if i := slices.IndexFunc(l.Subs, func(s Sub[S]) bool { return s.Session == session }); i >= 0 {
		l.Subs = slices.Delete(l.Subs, i, i+1)
	}
}
