// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"time"

	"github.com/manormq/manor/gateway/uplink"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
)

// moving is the move of a client's partition to another broker, as its gateway sees it.
// The client notices a pause at most: nothing of it is read from DownPause on, what was
// read before reaches the old broker before UpPaused, and the new one goes on from there.
// The connection's mutex guards it.
type moving struct {
	token uint64 // of the DownPause, for the Open at the new owner
	// told: UpPaused is on its way, and nothing else may be sent on the channel.
	told bool
	// placement is the revision of the tenant's cell when the DownPause came.
	placement uint64
	// until is when the client is given up, in Unix milliseconds.
	until int64
}

// pauseLocked takes a DownPause. What its reading goroutine has begun is sent first.
func (c *connection) pauseLocked(token uint64) {
	until := time.Now().UnixMilli() + c.gw.cfg.OwnerWait.Milliseconds()
	_, placement := c.gw.brokers.Table().Cell(c.tenant, int(c.m.Rules().Partitions()))
	c.moving = &moving{token: token, until: until, placement: placement}
	c.gw.registry.wheel.look(&c.timed, until+1)
	c.markLocked()
}

// mayPauseLocked reports whether the broker can be told that nothing more comes.
func (c *connection) mayPauseLocked() bool {
	return c.moving != nil && !c.moving.told && !c.turning && c.sending == 0
}

// goneLocked goes on with a paused client whose partition has gone from its broker: its
// channel is opened again where it is.
func (c *connection) goneLocked(l *uplink.Link[connection], partition uint16) {
	if !c.moving.told {
		c.endLocked(unreachable) // the broker has not waited
		return
	}
	c.opening = &opening{c: c, partition: partition, led: true, open: &link.Open{
		Tenant: c.tenant, ClientID: mqtt.ClientID(c.clientID), Partitions: c.m.Rules().Partitions(), Credit: c.m.Reopen(c.in.Socket.Backlog(), c.heldCostLocked()), Resume: c.moving.token, Placement: c.moving.placement,
		Limits: link.Limits{Tenant: c.m.Rules().Tenant()},
	}}
	var refused *uplink.Pool[connection]
	if c.gw.brokers.Owner(partition) == l.Pool() {
		refused = l.Pool()
	}
	c.parkLocked(refused)
}

// olderLocked ends a client whose new owner does not know how connections go on.
func (c *connection) olderLocked(l *uplink.Link[connection]) {
	l.Channels.Remove(c.channel)
	c.link, c.channel = nil, 0
	c.sending--
	c.endLocked(unreachable)
}

// reopenedLocked goes on with a client whose channel is open at the new owner.
func (c *connection) reopenedLocked(window uint64) {
	c.moving = nil
	c.m.Reopened(window)
	c.gw.metrics.opens[openResumed].Inc()
	c.lastRead.Store(time.Now().UnixMilli()) // not being read was no silence of the client's
	c.wakeLocked()
	if h := c.holding; h != nil && h.id != 0 {
		c.holdLocked(h.ends) // the old owner does not answer any more
	}
	c.markLocked() // for what the new owner is to hear
}

// movedLocked ends a client whose partition has moved, and which its new owner does not
// answer in time. It returns when to look again.
func (c *connection) movedLocked(now int64) (again int64) {
	if until := c.moving.until; now <= until {
		return until + 1
	}
	c.gw.metrics.opens[openTimedOut].Inc()
	c.endLocked(unreachable)
	return now + lingerTime.Milliseconds()
}
