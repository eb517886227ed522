// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"log/slog"
	"sync"
	"time"

	"github.com/manormq/manor/gateway/conn"
	"github.com/manormq/manor/gateway/uplink"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
)

// A client whose partition cannot be reached is given a guest session at another
// broker, if its tenant has it so (allow_register_during_netsplit). When the partition
// is back the guest is sent there. That a link to its owner is up does not say that the
// owner serves it, so one goes ahead, and the others follow when the owner has let
// somebody in.

const (
	// defaultGuestWait is after how long a client becomes a guest: failing over takes
	// less.
	defaultGuestWait = 5 * time.Second
	// guestRetry is when one is asked for again that was not given.
	guestRetry = time.Second
	// guestBack is for how long the owner of a partition has had a link before a guest
	// goes there; guestNext, when the next one does if the first was not let in.
	guestBack = time.Second
	guestNext = 5 * time.Second
)

// What happens to guest sessions.
const (
	guestOpened = iota
	guestEnded
	guestRefused
)

var guestEvents = [...]string{guestOpened: "opened", guestEnded: "ended", guestRefused: "refused"}

// backAgain is the end of a guest.
var backAgain = conn.Close{
	// The broker is told of a normal end, so that the will does not go out: the client
	// lives, and is told to come back.
	Ended: true, Cause: link.CloseNormal, Reason: mqtt.UseAnotherServer, Text: "the session of this client can be reached again; connect again",
}

// guests are the clients with a guest session, by their own partition. The zero guests
// are ready. The methods may be called concurrently, under a connection's mutex too.
type guests struct {
	mu    sync.Mutex
	n     int
	parts map[uint16]*guestPart
}

// guestPart are those of one partition.
type guestPart struct {
	all map[*connection]struct{}
	// owner has had a link since then; ahead is when one went there last. In Unix
	// milliseconds, 0 for not.
	owner        *uplink.Pool[connection]
	since, ahead int64
	// served: the owner has let somebody in.
	served bool
}

func (g *guests) add(partition uint16, c *connection) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.parts == nil {
		g.parts = map[uint16]*guestPart{}
	}
	p := g.parts[partition]
	if p == nil {
		p = &guestPart{all: map[*connection]struct{}{}}
		g.parts[partition] = p
	}
	p.all[c], p.served = struct{}{}, false
	g.n++
}

func (g *guests) remove(c *connection) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for partition, p := range g.parts {
		if _, ok := p.all[c]; ok {
			delete(p.all, c)
			g.n--
			if len(p.all) == 0 {
				delete(g.parts, partition)
			}
			return
		}
	}
}

// served notes that the owner of a partition has let somebody in.
func (g *guests) served(partition uint16) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if p := g.parts[partition]; p != nil {
		p.served = true
	}
}

func (g *guests) len() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.n
}

func (g *guests) any() bool { return g.len() > 0 }

// back returns those that go back now.
func (g *guests) back(now int64, owner func(partition uint16) *uplink.Pool[connection]) (out []*connection) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for partition, p := range g.parts {
		o := owner(partition)
		if o == nil || o != p.owner {
			p.owner, p.since, p.ahead, p.served = o, now, 0, p.served && o != nil
		}
		switch {
		case o == nil:
		case p.served:
			for c := range p.all {
				out = append(out, c)
			}
		case now-p.since >= guestBack.Milliseconds() && now-p.ahead >= guestNext.Milliseconds():
			p.ahead = now
			for c := range p.all {
				out = append(out, c)
				break
			}
		}
	}
	return out
}

// endGuests sends guests back whose partition can be reached.
func (g *Gateway) endGuests(now int64) {
	if !g.guests.any() {
		return
	}
	for _, c := range g.guests.back(now, g.brokers.Owner) {
		c.mu.Lock()
		if !c.ending {
			g.metrics.guests[guestEnded].Inc()
			c.endLocked(backAgain)
		}
		c.mu.Unlock()
	}
	g.flush()
}

// askForGuests asks for guest sessions for those that have waited long enough. dst is
// memory to use again.
func (g *Gateway) askForGuests(dst []request) []request {
	due := g.waiting.guests(time.Now().UnixMilli())
	if len(due) == 0 {
		return dst
	}
	return g.askBy(dst, due, func(c *connection) (*uplink.Link[connection], *link.Open) {
		o := c.opening
		not := ""
		if g.brokers.Owner(o.partition) != nil { // which has said that it does not serve it
			not, _, _ = g.brokers.Table().OwnerOf(o.partition)
		}
		o.guestAt = time.Now().UnixMilli() + guestRetry.Milliseconds()
		l, err := c.channelAtLocked(g.brokers.PickOther(c.tenant, c.clientID, not))
		if l == nil || err != nil {
			g.metrics.guests[guestRefused].Inc()
			return nil, nil
		}
		o.guest = true
		open := *o.open
		open.Guest, open.CleanStart, open.SessionExpiry = true, true, 0
		return l, &open
	})
}

// guests takes those out of their lists that may be guests now.
func (w *waiting) guests(now int64) (out []*opening) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range w.parts {
		for o := l.first; o != nil; {
			next := o.next
			if o.guestAt != 0 && o.guestAt <= now {
				out = append(out, o)
				w.remove(o)
			}
			o = next
		}
	}
	return out
}

// becomeGuestLocked notes that a broker has answered the Open of a guest.
func (c *connection) becomeGuestLocked(partition uint16) {
	c.guest = true
	c.m.Guest()
	c.gw.metrics.guests[guestOpened].Inc()
	c.gw.guests.add(partition, c)
	c.gw.waiting.kick()
	c.gw.waiters.Do(func() {
		c.gw.log.Warn("clients are given guest sessions, since their partition cannot be reached; further ones are counted only, for 10 seconds",
			slog.String("tenant", c.tenant), slog.String("client_id", short(c.clientID)), slog.Int("partition", int(partition)))
	})
}
