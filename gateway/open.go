// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"errors"
	"log/slog"
	"time"

	"github.com/manormq/manor/gateway/conn"
	"github.com/manormq/manor/gateway/uplink"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
)

// open asks the owner of the client's partition for a channel, or has the client
// wait until there is one.
func (c *connection) open(t *turn, open *link.Open) conn.Refusal {
	g := c.gw
	if open.Will != nil { // a view into the packet
		will := *open.Will
		will.Message = will.Message.Clone()
		open.Will = &will
	}
	c.mu.Lock()
	if c.ending {
		c.mu.Unlock()
		return conn.Refusal{}
	}
	c.opening = &opening{c: c, open: open}
	l, err := c.channelLocked()
	ch := c.channel
	if l == nil && err == nil && g.brokers.Table().Partitions() > 0 {
		c.parkLocked(nil)
		c.mu.Unlock()
		g.waiting.kick()
		return conn.Refusal{}
	}
	if l == nil {
		c.opening = nil
	}
	c.mu.Unlock()
	switch {
	case err != nil:
		return conn.Refusal{Reason: mqtt.ServerBusy, Text: err.Error()}
	case l == nil: // nobody has told of partitions
		return conn.Refusal{Reason: mqtt.ServerUnavailable, Text: "no broker is reachable"}
	}
	up := &t.fx.Up
	up.Frames = append(up.Frames, link.UpFrame{Kind: link.UpOpen, Channel: ch, Open: open})
	err = l.Send(up)
	t.fx.Reset()
	c.asked(l, ch, err != nil)
	l.FlushUp()
	g.flush()
	return conn.Refusal{}
}

// channelLocked gives c a channel at the owner of its partition, whose Open is to be
// sent, and asked to be called then. The link is nil if there is none now. An error
// says that there is no channel left.
func (c *connection) channelLocked() (*uplink.Link[connection], error) {
	o, g := c.opening, c.gw
	partition, placement := g.brokers.Partition(c.tenant, int(o.open.Partitions), c.clientID)
	if o.led {
		partition = o.partition
	}
	o.partition, o.open.Placement = partition, placement
	l := g.brokers.Pick(partition, c.tenant, c.clientID)
	if l != nil && !l.Cells() && (o.open.Partitions > 0 || placement > 0) {
		g.olderBrokers.Do(func() {
			g.log.Warn("a broker is too old for tenants that have partitions of their own, whose clients wait: update it; further ones are counted only, for 10 seconds",
				slog.String("tenant", c.tenant), slog.Int("partition", int(partition)))
		})
		l = nil
	}
	return c.channelAtLocked(l)
}

// strayed takes that a client belongs to another partition than its gateway has chosen,
// and reports whether that has happened so often that the brokers may not agree yet.
func (o *opening) strayed(partition uint16) (often bool) {
	o.led, o.partition = true, partition
	o.strays++
	return o.strays > straysMost
}

// straysMost is how often a client goes at once where a broker has sent it, before it
// waits each time.
const straysMost = 2

// channelAtLocked is channelLocked for a link, which may be nil.
func (c *connection) channelAtLocked(l *uplink.Link[connection]) (*uplink.Link[connection], error) {
	if l == nil {
		return nil, nil
	}
	ch, err := l.Channels.Add(c)
	if errors.Is(err, uplink.ErrEnds) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	c.link, c.channel = l, ch
	c.sending++
	return l, nil
}

// asked is called after the Open for a channel was sent; lost says that the link is.
func (c *connection) asked(l *uplink.Link[connection], ch link.Channel, lost bool) {
	c.mu.Lock()
	if lost && c.opening != nil && c.link == l && c.channel == ch {
		c.unlinkedLocked()
	}
	c.mu.Unlock()
	c.sent()
}

// unlinkedLocked goes on with a client whose link is lost before the broker has
// answered its Open: another will, if the table knows one.
func (c *connection) unlinkedLocked() {
	if c.gw.brokers.Table().Partitions() > 0 {
		c.parkLocked(nil)
		c.gw.waiting.kick()
		return
	}
	c.endLocked(unreachable)
}

// unreachable is the end of a client whose link is lost.
var unreachable = conn.Close{Ended: true, Reason: mqtt.ServerShuttingDown, Text: "the broker of this session is not reachable"}

// parkLocked has c, which has no channel any more, wait for the owner of its
// partition. Before CONNACK its goroutine, if it has one, gives it to an event loop. refused is
// the owner that has just said that it does not serve the partition; nil if none has.
// The caller kicks those that wait, so that they are tried again in time.
func (c *connection) parkLocked(refused *uplink.Pool[connection]) {
	g, o := c.gw, c.opening
	if c.link != nil {
		c.link.Channels.Remove(c.channel)
		c.link, c.channel = nil, 0
	}
	again := o.until != 0
	if o.guest {
		o.guest = false
		g.metrics.guests[guestRefused].Inc()
	}
	if !again {
		now := time.Now().UnixMilli()
		o.until = now + g.cfg.OwnerWait.Milliseconds()
		if c.m.Rules().Settings.AllowRegisterDuringNetsplit && !c.opened {
			o.guestAt = c.started + g.cfg.GuestWait.Milliseconds()
		}
		if !c.opened {
			c.waitsFromLocked(now)
		}
	}
	w, table := &g.waiting, g.brokers.Table()
	w.mu.Lock()
	defer w.mu.Unlock()
	o.placement = o.open.Placement
	if _, now := table.Cell(c.tenant, int(o.open.Partitions)); now > o.placement {
		// It was refused by what is not so any more, and replace may have been here.
		o.placeBy(table)
		refused = nil
	}
	if refused != nil {
		l := w.part(o.partition)
		l.refused = refused
		_, l.epoch, _ = table.OwnerOf(o.partition)
	}
	// Who was just refused lets others be tried before.
	w.add(o, again && refused == nil)
}

// waitsFromLocked begins the waiting of a client that has no CONNACK.
func (c *connection) waitsFromLocked(now int64) {
	g, o := c.gw, c.opening
	g.metrics.opens[openWaited].Inc()
	g.registry.wheel.look(&c.timed, min(o.until+1, now+hungUpEvery.Milliseconds()))
	g.waiters.Do(func() {
		owner, epoch, _ := g.brokers.Table().OwnerOf(o.partition)
		g.log.Warn("clients wait for their partition to have a broker; further ones are counted only, for 10 seconds",
			slog.Int("partition", int(o.partition)), slog.String("owner", owner), slog.Uint64("epoch", epoch))
	})
	c.awaits.Store(true)
	c.wakeLocked() // if its goroutine waits for the broker's answer
}

// moved goes on with a client whose partition is not the broker's.
func (c *connection) moved(l *uplink.Link[connection], ch link.Channel, m *link.Moved) {
	g := c.gw
	g.brokers.Moved(m)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.moving != nil && c.opening == nil && !c.ending && c.link == l && c.channel == ch {
		c.goneLocked(l, m.Partition)
		g.waiting.kick()
		return
	}
	g.metrics.opens[openMoved].Inc()
	if c.opening == nil || c.link != l || c.channel != ch {
		return // it has ended
	}
	var refused *uplink.Pool[connection]
	often := false
	if o := c.opening; m.Partition != o.partition && !o.guest && int(m.Partition) < g.brokers.Table().Partitions() {
		often = o.strayed(m.Partition)
	}
	if owner := g.brokers.Owner(c.opening.partition); owner == l.Pool() || often {
		refused = owner
	}
	c.parkLocked(refused)
	g.waiting.kick()
}

// openedLocked is called when a broker has answered an Open; in says that it lets the
// client in.
func (c *connection) openedLocked(in bool) {
	o := c.opening
	c.opening = nil
	if o.until != 0 {
		c.awaits.Store(false)
	}
	switch {
	case o.guest && in:
		c.becomeGuestLocked(o.partition)
	case o.guest:
	case o.until != 0:
		c.gw.waiting.served(o.partition)
		fallthrough
	default:
		c.gw.guests.served(o.partition)
	}
}

// waitsLocked reports whether c waits, or has waited, for the owner of its
// partition, and has no answer and no CONNACK yet.
func (c *connection) waitsLocked() bool { return c.opening != nil && c.opening.until != 0 && !c.opened }

// asks reports whether a broker is asked for a channel, or soon will be.
func (c *connection) asks() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.opening != nil
}

// overdueLocked ends c, which has no CONNACK yet, if it is time, and returns when to
// look again.
func (c *connection) overdueLocked(now int64) (again int64) {
	if c.waitsLocked() {
		if c.source == nil && c.in.Socket.Ended() { // a loop hears of it
			c.endLocked(conn.Close{Ended: true, Cause: link.CloseLost, ByClient: true})
			return now + lingerTime.Milliseconds()
		}
		if until := c.opening.until; now <= until {
			if c.source == nil {
				return min(until+1, now+hungUpEvery.Milliseconds())
			}
			return until + 1
		}
	} else if due := c.started + c.gw.cfg.ConnectTimeout.Milliseconds(); now <= due {
		return due + 1
	}
	cl := conn.Close{Ended: true, Cause: link.CloseLost, Reason: mqtt.ServerUnavailable, Text: "the broker does not answer"}
	switch {
	case c.version() == 0:
		cl.Reason, cl.Text = mqtt.KeepAliveTimeout, "no CONNECT"
	case c.waitsLocked():
		c.gw.metrics.opens[openTimedOut].Inc()
		partition := c.gw.waiting.partitionOf(c.opening)
		c.gw.timedOut.Do(func() {
			c.gw.log.Warn("clients are refused that have waited for their partition to have a broker; further ones are counted only, for 10 seconds",
				slog.Int("partition", int(partition)), slog.String("tenant", c.tenant), slog.String("client_id", short(c.clientID)))
		})
		if c.link == nil {
			cl = noOwner
		}
	}
	c.endLocked(cl)
	return now + lingerTime.Milliseconds()
}

// hungUp looks, on its loop, whether a client that waits has hung up.
func (c *connection) hungUp() {
	c.mu.Lock() // which who moves it to the loop may still hold
	source, waits := c.source, c.awaits.Load()
	c.mu.Unlock()
	switch {
	case !waits: // its wake-up comes
	case c.in.Socket.Ended():
		c.finish()
	default: // bytes that had come before the loop was told to leave them
		source.WantEnd()
	}
}
