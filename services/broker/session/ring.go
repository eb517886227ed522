// SPDX-License-Identifier: Apache-2.0

package session

import "github.com/manormq/manor/infra/mqtt"

// ring holds owed acknowledgements: pushed at the tail, filled anywhere, popped
// from the head once filled. A place is a count since the beginning, so it
// stays valid while others leave.
type ring struct {
	owed []owed
	head uint32 // place of owed[0]
}

type owed struct {
	id     uint16
	filled bool
	reason mqtt.ReasonCode
}

func (r *ring) len() int { return len(r.owed) }

// reset forgets everything. Places go on, so that a late fill finds nothing.
func (r *ring) reset() {
	r.head += uint32(len(r.owed))
	r.owed = nil
}

// push adds an acknowledgement for id and returns its place.
func (r *ring) push(id uint16) uint32 {
	r.owed = append(r.owed, owed{id: id})
	return r.head + uint32(len(r.owed)) - 1
}

// fill says that the acknowledgement at place may go, and returns its packet
// identifier, or 0 if it is no longer there.
func (r *ring) fill(place uint32, reason mqtt.ReasonCode) uint16 {
	i := place - r.head
	if int64(i) >= int64(len(r.owed)) {
		return 0
	}
	r.owed[i].filled, r.owed[i].reason = true, reason
	return r.owed[i].id
}

// fillID fills every acknowledgement that is owed for id.
func (r *ring) fillID(id uint16, reason mqtt.ReasonCode) {
	for i := range r.owed {
		if r.owed[i].id == id && !r.owed[i].filled {
			r.owed[i].filled, r.owed[i].reason = true, reason
		}
	}
}

// pop takes the head off if it is filled; 0 means that it is not.
func (r *ring) pop() (id uint16, reason mqtt.ReasonCode) {
	if len(r.owed) == 0 || !r.owed[0].filled {
		return 0, 0
	}
	o := r.owed[0]
	r.head++
	if len(r.owed) == 1 {
		r.owed = r.owed[:0]
	} else {
		r.owed = r.owed[1:]
	}
	return o.id, o.reason
}
