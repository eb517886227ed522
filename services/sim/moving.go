// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/shard"
)

// moving is a connection whose partition moves to another broker as planned. A gateway
// reads nothing of its client meanwhile, and the client notices nothing: see gateway and
// the broker's shard.Set.Cede.
type moving struct {
	token uint64
	// said is what the client has said since the pause.
	said []link.UpFrame
	// away says that the broker has let it go, at that time.
	away bool
	at   int64
	// serves, jumps and revision, of the tenant's record, are those of the world when the pause began.
	serves, jumps int
	revision      uint64
	// from is the partition at which the session was, atOwner whether its broker was its owner then.
	from    partition.ID
	atOwner bool
}

// patience is for how long a gateway looks for the next owner, in microseconds. The
// session waits a little longer.
const patience = 8 * second

// pause takes a DownPause.
func (d *device) pause(token uint64) {
	d.send(link.UpFrame{Kind: link.UpPaused})
	if d.life != nil {
		d.life.moved = true
	}
	d.moving = &moving{token: token, serves: d.w.serves[d.part], jumps: d.w.jumps, revision: d.w.places.record.Revision, from: d.part, atOwner: d.w.bus.table(d.part).Owner == d.at.n.name}
}

// holds reports whether what a client says waits for the end of its move.
func (d *device) holds(f *link.UpFrame) bool {
	if d.moving == nil || f.Kind == link.UpOpen || f.Kind == link.UpClose {
		return false
	}
	d.moving.said = append(d.moving.said, *f)
	return true
}

// moved takes a DownMoved: the partition is not at this broker.
func (d *device) moved() {
	if m := d.moving; m != nil && !m.away {
		m.away, m.at = true, d.w.now
	}
	d.closed()
}

// impatient ends the connection of a client that has moved for too long, or that leaves
// meanwhile.
func (d *device) impatient() {
	w := d.w
	if m := d.moving; m != nil && (w.now-m.at > patience || w.faults && w.chance(2)) {
		w.note(d.label+" is given up", "", m.token)
		d.moving = nil
	}
}

func (d *device) reopen() {
	d.send(link.UpFrame{Kind: link.UpOpen, Open: &link.Open{
		Tenant: d.house.name, ClientID: mqtt.ClientID(d.id), Partitions: uint16(d.w.spread), Credit: 1 << 40, Resume: d.moving.token,
	}})
}

// resumed goes on at the next owner.
func (d *device) resumed() {
	m := d.moving
	d.moving = nil
	d.lives()
	d.w.happens("connection moved")
	for _, f := range m.said {
		d.send(f)
	}
}

// refused is that the next owner does not know of the connection. It must, if it is the
// one that came right behind the former owner, not one before it that has not heard
// of either, and the session has not waited for too long.
func (d *device) refused(why string) {
	w, m := d.w, d.moving
	if w.places.begun == 0 && w.bus.table(d.part).Owner == d.at.n.name && w.serves[d.part] == m.serves+1 && w.jumps == m.jumps && w.now-m.at <= patience {
		w.History.Break("%s has moved as planned, and %s refuses it: %s", d.label, d.at.n.name, why)
	}
	if p := &w.places; m.atOwner && p.record.Stage == shard.Settled && p.arrivedSince(m.revision, m.from, d.part) && w.jumps == m.jumps && w.now-m.at <= patience {
		w.History.Break("%s has gone elsewhere with its tenant, and %s refuses it: %s", d.label, d.at.n.name, why)
	}
	d.gone()
}
