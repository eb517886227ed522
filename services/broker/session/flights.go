// SPDX-License-Identifier: Apache-2.0

package session

import "sync"

// flights are the deliveries that are not fully acknowledged, by packet
// identifier. An identifier has one place in the table, which its lowest bits
// name; new identifiers are chosen so that theirs is free. The zero value is
// empty and has no memory.
type flights struct {
	slots []delivery // a power of two of them, or none
	n     int
}

const (
	minSlots  = 4
	maxSlots  = 1 << 16
	keepSlots = 16 // kept when nothing is in flight any more
)

// place returns where id is, or would be.
func (f *flights) place(id uint16) *delivery { return &f.slots[int(id)&(len(f.slots)-1)] }

// get returns the delivery with that identifier, or nil. It is valid until the
// next call of another method.
func (f *flights) get(id uint16) *delivery {
	if f.n == 0 {
		return nil
	}
	if d := f.place(id); d.id == id && id != 0 {
		return d
	}
	return nil
}

// next returns the first identifier after id, from 1 on, whose place is free;
// 0 if all are taken.
func (f *flights) next(id uint16) uint16 {
	if f.n >= maxSlots-1 {
		return 0
	}
	if 2*(f.n+1) > len(f.slots) && len(f.slots) < maxSlots {
		f.grow()
	}
	for {
		if id++; id != 0 && f.place(id).id == 0 {
			return id
		}
	}
}

// put adds or replaces the delivery with d's identifier.
func (f *flights) put(d delivery) {
	for len(f.slots) == 0 || f.place(d.id).id != 0 && f.place(d.id).id != d.id {
		f.grow()
	}
	p := f.place(d.id)
	if p.id == 0 {
		f.n++
	}
	*p = d
}

// remove forgets the delivery with that identifier, if there is one.
func (f *flights) remove(id uint16) {
	p := f.get(id)
	if p == nil {
		return
	}
	*p = delivery{}
	switch f.n--; {
	case len(f.slots) <= keepSlots:
	case f.n == 0:
		giveSlots(f.slots)
		f.slots = nil
	case 8*f.n <= len(f.slots) && f.n&(f.n-1) == 0: // now and then
		f.shrink()
	}
}

// shrink quarters the table, if everything still has a place of its own there.
func (f *flights) shrink() {
	less := flights{slots: make([]delivery, len(f.slots)/4), n: f.n}
	for i := range f.slots {
		if d := f.slots[i]; d.id != 0 {
			p := less.place(d.id)
			if p.id != 0 {
				return
			}
			*p = d
		}
	}
	*f = less
}

// grow doubles the table: two that had different places still have.
func (f *flights) grow() {
	old := f.slots
	f.slots = takeSlots(max(minSlots, 2*len(old)))
	for i := range old {
		if old[i].id != 0 {
			*f.place(old[i].id) = old[i]
		}
	}
	clear(old)
	giveSlots(old)
}

// Tables of bursts go from session to session: nobody keeps one while idle, and a session
// whose window fills and empties all the time does not make one each time. They are empty.
var (
	slots32  = sync.Pool{New: func() any { return new([32]delivery) }}
	slots64  = sync.Pool{New: func() any { return new([64]delivery) }}
	slots128 = sync.Pool{New: func() any { return new([128]delivery) }}
)

func takeSlots(n int) []delivery {
	switch n {
	case 32:
		return slots32.Get().(*[32]delivery)[:]
	case 64:
		return slots64.Get().(*[64]delivery)[:]
	case 128:
		return slots128.Get().(*[128]delivery)[:]
	}
	return make([]delivery, n)
}

func giveSlots(s []delivery) {
	switch len(s) {
	case 32:
		slots32.Put((*[32]delivery)(s))
	case 64:
		slots64.Put((*[64]delivery)(s))
	case 128:
		slots128.Put((*[128]delivery)(s))
	}
}

// each calls visit for every delivery, in no particular order. visit must not
// change the table.
func (f *flights) each(visit func(d *delivery)) {
	if f.n == 0 {
		return
	}
	for i := range f.slots {
		if f.slots[i].id != 0 {
			visit(&f.slots[i])
		}
	}
}
