// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"errors"

	"github.com/manormq/manor/services/broker/swc"
)

// Version is the first byte of every message.
const Version = 1

// ErrVersion says that a message is of another version.
var ErrVersion = errors.New("metadata: message of another version")

// kind is the second byte of a message.
type kind byte

// The kinds. docs/wire/metadata.md draws their bodies.
const (
	kindNews    kind = 1 // objects that the sender has just written
	kindSeen    kind = 2 // how much of the receiver's news the sender has
	kindCompare kind = 3 // what the sender knows; asks for what it does not
	kindAnswer  kind = 4 // objects that the receiver has missed
	kindFetch   kind = 5 // asks for the next page of everything
	kindPage    kind = 6 // a page of everything
	kindRefused kind = 7 // the receiver's store was given up for lost
)

// head is the start of every message.
type head struct {
	kind   kind
	groups byte // how many the sender has
	group  byte
	actor  swc.Actor // under which the sender writes
}

func (h head) writer() *writer {
	w := &writer{b: make([]byte, 0, 256)}
	w.u8(Version)
	w.u8(byte(h.kind))
	w.u8(h.groups)
	w.u8(h.group)
	w.u64(uint64(h.actor))
	return w
}

func readHead(b []byte) (head, *reader, error) {
	r := &reader{b: b}
	if r.u8() != Version && r.err == nil {
		return head{}, nil, ErrVersion
	}
	h := head{kind: kind(r.u8()), groups: r.u8(), group: r.u8(), actor: swc.Actor(r.u64())}
	if r.err == nil && (h.actor == 0 || h.group >= h.groups) {
		r.fail()
	}
	return h, r, r.err
}

// IsExchange reports whether a message belongs to an exchange, in which a broker gets what it
// has missed; others tell of what happens just now.
func IsExchange(message []byte) bool {
	return len(message) > 1 && kind(message[1]) >= kindCompare && kind(message[1]) <= kindPage
}

// entry is an object, stripped by the clock of its message, and those dots of its
// key of which the message tells.
type entry struct {
	path   string
	dots   []swc.Dot
	object swc.Container
}

func (w *writer) entries(list []entry) {
	w.number(uint64(len(list)))
	for _, e := range list {
		w.text(e.path)
		w.dots(e.dots)
		w.b = e.object.Append(w.b)
	}
}

func (r *reader) entries() []entry {
	n := r.count(4)
	out := make([]entry, 0, n)
	for range n {
		e := entry{path: r.text(), dots: r.dots(), object: algebra(r, swc.DecodeContainer)}
		if r.err != nil {
			return nil
		}
		out = append(out, e)
	}
	return out
}

// news: base is that of the sender's clock.
type news struct {
	base    swc.Vector
	entries []entry
}

func (n news) append(w *writer) {
	w.b = n.base.Append(w.b)
	w.entries(n.entries)
}

func (r *reader) news() news {
	return news{base: algebra(r, swc.DecodeVector), entries: r.entries()}
}

// report is what a broker knows, and of whom: it stands in both messages of an
// exchange.
type report struct {
	id     uint64 // of the exchange, chosen by who began it
	roster roster
	clock  swc.Clock
	sum    uint64 // over the dots of the sender's values
	marks  swc.Watermark
}

func (p *report) append(w *writer) {
	w.number(p.id)
	p.roster.append(w)
	w.b = p.clock.Append(w.b)
	w.u64(p.sum)
	w.b = p.marks.Append(w.b)
}

func (r *reader) report() report {
	return report{
		id: r.number(), roster: r.roster(), clock: algebra(r, swc.DecodeClock), sum: r.u64(), marks: algebra(r, swc.DecodeWatermark),
	}
}

// answer tells of dots that the receiver has missed. more: there are others.
// pruned: for some the key is not known any more, so the receiver has to fetch
// everything. lost are dots that wrote no key that anybody knows.
type answer struct {
	report
	more, pruned bool
	lost         []swc.Dot
	entries      []entry
}

func (a *answer) append(w *writer) {
	a.report.append(w)
	w.flag(a.more)
	w.flag(a.pruned)
	w.dots(a.lost)
	w.entries(a.entries)
}

func (r *reader) answer() answer {
	return answer{report: r.report(), more: r.flag(), pruned: r.flag(), lost: r.dots(), entries: r.entries()}
}

// page holds the records of the key map and the objects of a group, in the order
// of the store, from a cursor (included) to the next (excluded); an empty next is
// the end.
type page struct {
	id         uint64
	from, next string
	clock      swc.Clock
	records    []record
}

// record is a key of the store from its kind on, and what stands there.
type record struct {
	key   string
	value []byte
}

func (p *page) append(w *writer) {
	w.number(p.id)
	w.text(p.from)
	w.text(p.next)
	w.b = p.clock.Append(w.b)
	w.number(uint64(len(p.records)))
	for _, x := range p.records {
		w.text(x.key)
		w.text(string(x.value))
	}
}

func (r *reader) page() page {
	p := page{id: r.number(), from: r.text(), next: r.text(), clock: algebra(r, swc.DecodeClock)}
	for range r.count(2) {
		p.records = append(p.records, record{key: r.text(), value: []byte(r.text())})
	}
	return p
}
