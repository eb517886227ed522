// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"cmp"
	"slices"

	"github.com/manormq/manor/services/broker/swc"
)

// member is a broker that is one, was one, or of which another broker told.
type member struct {
	name string
	// actor is the latest under which it is known to write; 0 if it was never
	// heard. Whoever writes under an earlier one has lost data since, or has left.
	actor swc.Actor
	live  bool
}

// roster are all members ever, this broker included, in the order of their names.
// Who has left stays, in some 20 bytes, so that its old store is known.
type roster []member

func (r roster) find(name string) (int, bool) {
	return slices.BinarySearchFunc(r, name, func(m member, name string) int { return cmp.Compare(m.name, name) })
}

// at returns the place of name, which it adds if it is new.
func (r *roster) at(name string) *member {
	i, ok := r.find(name)
	if !ok {
		*r = slices.Insert(*r, i, member{name: name})
	}
	return &(*r)[i]
}

// live are those of names that are members and not self, in order.
func (r roster) live(names []string, self string) []string {
	var out []string
	for _, m := range r {
		if m.live && m.name != self && slices.Contains(names, m.name) {
			out = append(out, m.name)
		}
	}
	return out
}

// alone reports whether there is one member, which is this broker.
func (r roster) alone() bool {
	n := 0
	for _, m := range r {
		if m.live {
			n++
		}
	}
	return n == 1
}

// unheard reports whether there is a member whose actor is not known.
func (r roster) unheard() bool {
	return slices.ContainsFunc(r, func(m member) bool { return m.live && m.actor == 0 })
}

// writes reports whether a member writes under a.
func (r roster) writes(a swc.Actor) bool {
	return slices.ContainsFunc(r, func(m member) bool { return m.live && m.actor == a })
}

func (r roster) append(w *writer) {
	w.number(uint64(len(r)))
	for _, m := range r {
		w.text(m.name)
		w.u64(uint64(m.actor))
		w.flag(m.live)
	}
}

func (r *reader) roster() roster {
	var out roster
	for range r.count(10) {
		m := member{name: r.text(), actor: swc.Actor(r.u64()), live: r.flag()}
		if n := len(out); n > 0 && out[n-1].name >= m.name {
			r.fail()
		}
		out = append(out, m)
	}
	return out
}
