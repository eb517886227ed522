// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"io"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/partition"
)

// RunExpiring runs the world of RunSessions with devices whose sessions end some seconds
// after their connections. No clock jumps, which would end them at any time.
func RunExpiring(seed uint64, trace io.Writer) Result {
	return runSessions(seed, trace, manner{expires: true})
}

// lifetime is what the session of a device has that expires: when it ends
// [MQTT-3.1.2.11.2], as the owners of its partition are to count. An owner counts from when the
// connection ends. Who takes a partition up counts from then for the connections that
// were open at the last owner, of which it knows no more.
type lifetime struct {
	lasts int64 // in microseconds
	// alone is since when no owner of the partition has a connection of it, -1 if one has.
	alone int64
	// told: who had the last connection knows that it has ended. A device that opens another
	// one beside it does not say so.
	told bool
	// moved: since the last connection was made somebody has begun to move it to
	// another broker, where it is waited for.
	moved bool
	// tried is when the last connection ended, of which the device may not have heard that it was made.
	tried int64
	// asks is when the device has come last, back when it will at the earliest.
	asks, back int64
	// stays are how long it is to stay away, one after the other, when all faults have ended.
	stays []int64
}

// Slack of lifetimes, in microseconds.
const (
	// ticks is the most that a session lives on after its end.
	ticks = 200 * ms
	// waits is the most that it is waited for a connection that moves, before that counts as lost.
	waits = 12 * second
)

// expiring are devices with sessions that end.
func (w *World) expiring(h *house) {
	for _, id := range []string{"e0", "e1", "e2", "e3"} {
		d := w.newDevice(h, id, 0, "e/"+id)
		d.life = &lifetime{lasts: w.between(2, 6) * second}
	}
}

// expiry is the Session Expiry Interval of its connections, in seconds.
func (d *device) expiry() uint32 {
	if d.life == nil {
		return mqtt.SessionNeverExpires
	}
	return uint32(d.life.lasts / second)
}

// isAway: it stays away for longer.
func (d *device) isAway() bool {
	return d.life != nil && d.at == nil && d.moving == nil && d.w.now < d.life.back
}

// departs has a device leave for some time, and reports whether it does.
func (d *device) departs() bool {
	w, l := d.w, d.life
	switch {
	case l == nil || d.moving != nil || !d.ready():
		return false
	case len(l.stays) > 0:
		l.back, l.stays = w.now+l.stays[0], l.stays[1:]
	case w.faults && w.chance(8):
		l.back = w.now + w.between(0, 2*l.lasts)
	default:
		return false
	}
	d.leave([]link.CloseCause{link.CloseNormal, link.CloseLost}[w.rand.IntN(2)])
	return true
}

// lives is that a session has a connection.
func (d *device) lives() {
	l := d.life
	if l == nil {
		return
	}
	l.alone, l.told, l.moved = -1, false, false
	switch t := d.w.taken[d.part]; t.by {
	case d.at:
	case nil: // it has just been lost there
		l.alone = d.w.now
	default: // who has taken it up since has not heard of the connection
		l.alone = t.at
	}
}

// ends is that its connection does, if it has one. told: its broker is told.
func (d *device) ends(told bool) {
	l := d.life
	if l == nil {
		return
	}
	l.tried = d.w.now
	if d.at != nil && !d.opened && d.kept && d.mayBeOver() {
		// Perhaps it has been given a new session, and was not told. It takes for granted nothing that it had.
		d.forget()
	}
	if l.alone < 0 {
		l.alone, l.told = d.w.now, told
	}
}

// takes notes who serves a partition, from now on or again.
func (w *World) takes(id partition.ID, by *station) {
	if t := &w.taken[id]; t.by == by {
		t.again = w.now
		return
	}
	w.taken[id] = taken{by: by, at: w.now, again: w.now}
	for _, d := range w.devices {
		if d.part == id && d.at != by {
			d.ends(false)
		}
	}
}

// taken is who has taken a partition up last, when, and since when it serves it without a break: while it
// hands it over no session ends.
type taken struct {
	by        *station
	at, again int64
}

// mayBeOver reports whether the session may have ended by now.
func (d *device) mayBeOver() bool {
	l := d.life
	return l != nil && l.alone >= 0 && d.w.now+2*lag >= l.alone+l.lasts
}

// mustBeOver reports whether it had ended when the device came.
func (d *device) mustBeOver() bool {
	l := d.life
	if l == nil || l.alone < 0 {
		return false
	}
	up := d.w.taken[d.part].at
	if up < l.alone && !l.told {
		return false
	}
	from := max(l.alone, l.tried, up)
	if l.moved {
		from += waits
	}
	return l.asks >= max(from+l.lasts, d.w.taken[d.part].again)+ticks
}

// over has a device begin with the session that it has been given in place of the one that has ended.
func (d *device) over() {
	d.w.happens("session expired")
	d.forget()
}

func (d *device) forget() {
	d.asked++
	d.kept, d.suback = false, 0
	d.house.Forgo(d.id)
}

// stays has all sessions that end be away for less than they last, for longer, and for less.
func (w *World) stays() {
	for _, d := range w.devices {
		if l := d.life; l != nil {
			l.stays = []int64{l.lasts / 2, l.lasts + 2*ticks, l.lasts / 2}
		}
	}
}
