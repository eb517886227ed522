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

// disturbed has the checkers of all tenants note that something has happened by which what was published
// before may come twice.
func (w *World) disturbed(note func(m *check.Messages)) {
	for _, h := range w.houses {
		note(&h.Messages)
	}
}

// lost notes that a broker ends or begins.
func (n *node) lost() {
	n.w.disturbed(func(m *check.Messages) { m.BrokerLost(string(n.name)) })
}

// interrupted notes that the connection of a device, or its session's owner, is another one.
func (d *device) interrupted() { d.house.Interrupted(d.id) }

// place is where the session of a device with a connection is.
func (d *device) place() check.Place {
	return check.Place{Broker: string(d.at.n.name), Partition: int(d.part)}
}
