// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"fmt"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/sim/check"
)

// The names of tenants: there is one in most worlds, and a second one in rough ones, whose devices have
// the names, topics and filters of the first one's. Only the first one goes to other partitions.
const (
	tenant    = "acme"
	neighbour = "globex"
)

// house is a tenant with what its devices have published and got.
type house struct {
	name string
	check.Messages
}

// newHouse adds a tenant. marked has all its payloads say whose they are.
func (w *World) newHouse(name string, marked bool) *house {
	h := &house{name: name}
	h.Broken = w.History.Break
	if marked {
		h.Mark = "@" + name
	}
	w.houses = append(w.houses, h)
	return h
}

// house is the tenant of that name.
func (w *World) house(name string) *house {
	for _, h := range w.houses {
		if h.name == name {
			return h
		}
	}
	panic(fmt.Sprintf("sim: no tenant is called %q", name))
}

// cell are the partitions of a tenant.
func (w *World) cell(of *house) []partition.ID {
	if of.name == tenant && w.places.record.Revision > 0 {
		return w.places.record.List
	}
	var all []partition.ID
	for p := range partition.ID(w.partitions) {
		all = append(all, p)
	}
	return link.Cell(of.name, w.spread, all)
}

// disturbed notes that something has happened between brokers, or to one: what was published before may
// come twice.
func (w *World) disturbed() {
	for _, h := range w.houses {
		h.Disturbed()
	}
}

// interrupted notes that the connection of a device, or its session's owner, is another one.
func (d *device) interrupted() { d.house.Interrupted(d.id) }
