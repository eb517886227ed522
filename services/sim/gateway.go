// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"slices"
	"strings"

	"github.com/manormq/manor/infra/link"
)

// gateway is a station as the gateway of the node's devices.
type gateway station

// Receive implements link.Gateway: frames reach their devices a little later.
func (s *gateway) Receive(b *link.Down) {
	w := s.n.w
	for i := range b.Frames {
		f := b.Frames[i]
		d := s.devices[f.Channel]
		if f.Kind == link.DownClose || f.Kind == link.DownMoved {
			delete(s.left, f.Channel)
		}
		if d != nil && f.Kind == link.DownClose {
			d.mayEnd()
		}
		if d == nil || f.Kind == link.DownTable || f.Kind == link.DownLoad || f.Kind == link.DownWindow {
			continue
		}
		payload := ""
		if f.Kind == link.DownDeliver {
			payload, _, _ = strings.Cut(string(b.Messages[f.Slot].Payload), "\x00")
		}
		f.Reasons = slices.Clone(f.Reasons)
		gen := d.gen
		d.arrives = max(d.arrives, w.now+w.between(100, lag))
		w.after(d.arrives-w.now, func() {
			if d.gen == gen && d.at.n.up && d.at.n.run == d.run {
				d.receive(&f, payload)
			}
		})
	}
}

// Flush implements link.Gateway.
func (s *gateway) Flush() {}

// Features implements link.Featured.
func (s *gateway) Features() uint32 { return link.Features }

// Lost implements link.Gateway.
func (s *gateway) Lost(error) {}

// gatewayCrash has all devices of a node's gateway lose their connections at once.
func gatewayCrash(w *World) func() {
	n := w.pick()
	w.begins("gateway crash", n.name)
	for _, d := range w.devices {
		if d.at != nil && d.at.n == n && n.up && d.run == n.run {
			d.leave(link.CloseLost)
		}
	}
	return func() {}
}

// again opens another connection while the present one is open: that is to be closed
// with 0x8E [MQTT-3.1.4-3].
func (d *device) again() {
	d.older, d.olderAt = d.channel, d.at
	d.at.left[d.channel] = true
	d.gone()
	d.connect()
}

// tookOver is that the broker has taken a new connection. If it is the one that has the
// older one too, it has closed that before.
func (d *device) tookOver() {
	if d.older != 0 && d.olderAt == d.at && d.at.left[d.older] {
		d.w.History.Break("%s has a second connection at %s, and the first was not closed", d.label, d.at.n.name)
	}
	if d.older != 0 && d.olderAt == d.at {
		d.w.happens("taken over")
	}
	d.older, d.olderAt = 0, nil
}
