// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/manormq/manor/gateway/conn"
	"github.com/manormq/manor/gateway/uplink"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
)

const (
	// defaultOwnerWait is for how long a client waits for its partition to have a
	// broker: a failover takes a few seconds.
	defaultOwnerWait = 10 * time.Second
	// ownerRetry is how often those that wait are tried again if nothing has changed.
	ownerRetry = 100 * time.Millisecond
	// openMost is how many are asked for at once.
	openMost = 256
	// hungUpEvery is how often a client that waits on a goroutine is looked at, whether
	// it has hung up.
	hungUpEvery = time.Second
)

// noOwner is the end of a client that has waited in vain.
var noOwner = conn.Close{
	Ended: true, Cause: link.CloseLost, Reason: mqtt.ServerUnavailable, Text: "the partition of this client has no broker now; try again",
}

// opening is a CONNECT on its way to the owner of its client's partition. The
// connection's mutex guards open and until, that of waiting the rest.
type opening struct {
	c    *connection
	open *link.Open // may be sent several times: it owns its memory
	// until is for how long it may wait, in Unix milliseconds; 0 before it had to.
	until int64
	// guestAt is from when a broker may be asked for a guest session, in Unix
	// milliseconds, 0 for never; guest, that one is.
	guestAt int64
	guest   bool

	// partition is the client's; led says that a broker has said so, strays how often one
	// has said another. placement is the revision of its tenant's cell by which it waits.
	partition uint16
	led       bool
	strays    int
	placement uint64
	in        *waitingPart // nil while a broker is asked
	prev      *opening
	next      *opening
}

// waiting are the clients whose partition has no broker now, as far as the gateway
// knows. Each costs memory and nothing else: no goroutine, no timer, and no message
// to a broker that has just said that it does not serve the partition, but from one
// of them.
type waiting struct {
	mu     sync.Mutex
	of     int    // how many partitions the table had when they were put into lists
	placed uint64 // Table.Placements of then
	n      int
	parts  map[uint16]*waitingPart
	signal chan struct{} // capacity 1: something may have changed
}

// waitingPart are those of one partition, the one that came first in front.
type waitingPart struct {
	first, last *opening
	// refused is the owner that has said at that epoch that it does not serve the
	// partition; nil if it may.
	refused *uplink.Pool[connection]
	epoch   uint64
}

// kick has those that wait tried again.
func (w *waiting) kick() {
	select {
	case w.signal <- struct{}{}:
	default:
	}
}

func (w *waiting) len() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.n
}

// part returns that of a partition, made when first needed.
func (w *waiting) part(partition uint16) *waitingPart {
	l := w.parts[partition]
	if l == nil {
		l = &waitingPart{}
		w.parts[partition] = l
	}
	return l
}

// add has o wait; in front of the others if again.
func (w *waiting) add(o *opening, again bool) {
	l := w.part(o.partition)
	o.in, o.prev, o.next = l, l.last, nil
	if again {
		o.prev, o.next = nil, l.first
	}
	if o.prev == nil {
		l.first = o
	} else {
		o.prev.next = o
	}
	if o.next == nil {
		l.last = o
	} else {
		o.next.prev = o
	}
	w.n++
}

// remove takes o out, if it waits.
func (w *waiting) remove(o *opening) {
	l := o.in
	if l == nil {
		return
	}
	if o.prev == nil {
		l.first = o.next
	} else {
		o.prev.next = o.next
	}
	if o.next == nil {
		l.last = o.prev
	} else {
		o.next.prev = o.prev
	}
	o.in, o.prev, o.next = nil, nil, nil
	w.n--
}

// partitionOf is that for which o waits.
func (w *waiting) partitionOf(o *opening) uint16 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return o.partition
}

// forget takes o out for good.
func (w *waiting) forget(o *opening) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.remove(o)
}

// served notes that a partition has an owner that serves.
func (w *waiting) served(partition uint16) {
	w.mu.Lock()
	if l := w.parts[partition]; l != nil {
		l.refused = nil
	}
	w.mu.Unlock()
	w.kick()
}

// reopen tries those that wait again until ctx is done.
func (g *Gateway) reopen(ctx context.Context) {
	w := &g.waiting
	again := time.NewTimer(ownerRetry)
	defer again.Stop()
	armed := true
	var due []*opening
	var asked []request
	for {
		probe := false
		select {
		case <-ctx.Done():
			return
		case <-w.signal:
		case <-again.C:
			probe, armed = true, false
		}
		due = g.due(due[:0], probe)
		for first := 0; first < len(due); first += openMost {
			asked = g.ask(asked[:0], due[first:min(len(due), first+openMost)])
			clear(asked)
		}
		clear(due)
		if probe {
			asked = g.askForGuests(asked[:0])
			clear(asked)
			g.endGuests(time.Now().UnixMilli())
		}
		if !armed && (w.len() > 0 || g.guests.any()) {
			armed = true
			again.Reset(ownerRetry)
		}
	}
}

// due takes those out of their lists whose partition has an owner with a link. Where the
// owner has refused one it is one of a few tenants, and none unless probe.
func (g *Gateway) due(dst []*opening, probe bool) []*opening {
	w, table := &g.waiting, g.brokers.Table()
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := table.Partitions(); n != w.of {
		w.regroup(n, table)
	}
	if n := table.Placements(); n != w.placed {
		w.placed = n
		dst = g.replace(dst)
	}
	for partition, l := range w.parts {
		if l.first == nil {
			if l.refused == nil {
				delete(w.parts, partition)
			}
			continue
		}
		owner := g.brokers.Owner(partition)
		if owner == nil {
			continue
		}
		if _, epoch, _ := table.OwnerOf(partition); l.refused == owner && l.epoch == epoch {
			if probe {
				dst = w.probe(dst, l)
			}
			continue
		}
		for l.first != nil {
			dst = append(dst, l.first)
			w.remove(l.first)
		}
	}
	return dst
}

// probesMost is of how many tenants a client is tried at once where the owner has refused one: it
// may let in nobody, or nobody of a tenant that goes to other partitions.
const probesMost = 4

// probe takes out a client of each of the first tenants that wait.
func (w *waiting) probe(dst []*opening, l *waitingPart) []*opening {
	begin := len(dst)
	for o := l.first; o != nil && len(dst)-begin < probesMost; {
		next := o.next
		if !slices.ContainsFunc(dst[begin:], func(x *opening) bool { return x.open.Tenant == o.open.Tenant }) {
			w.remove(o)
			dst = append(dst, o)
		}
		o = next
	}
	return dst
}

// replace takes those out of whose tenant a newer cell was told, to be tried where it lives now:
// nobody has refused them there yet.
func (g *Gateway) replace(dst []*opening) []*opening {
	w, table := &g.waiting, g.brokers.Table()
	var moved []*opening
	for _, l := range w.parts {
		for o := l.first; o != nil; o = o.next {
			if _, now := table.Cell(o.open.Tenant, int(o.open.Partitions)); now > o.placement {
				moved = append(moved, o)
			}
		}
	}
	for _, o := range moved {
		w.remove(o)
		if o.placeBy(table); g.brokers.Owner(o.partition) != nil {
			dst = append(dst, o)
		} else {
			w.add(o, true)
		}
	}
	return dst
}

// placeBy has o wait for the partition that the table says, whatever a broker has said.
func (o *opening) placeBy(table *link.Table) {
	list, placement := table.Cell(o.open.Tenant, int(o.open.Partitions))
	o.partition, o.placement, o.led = link.Choose(list, string(o.open.ClientID)), placement, false
}

// regroup puts all into the lists of a table with n partitions.
func (w *waiting) regroup(n int, table *link.Table) {
	old := w.parts
	w.of, w.parts = n, map[uint16]*waitingPart{}
	for _, l := range old {
		for o := l.first; o != nil; o = l.first {
			w.remove(o)
			o.placeBy(table)
			w.add(o, false)
		}
	}
}

// request is a client for whom a broker is asked.
type request struct {
	c       *connection
	link    *uplink.Link[connection]
	channel link.Channel
}

// ask asks the owners for channels for those clients, which are in no list. dst is
// memory to use again.
func (g *Gateway) ask(dst []request, due []*opening) []request {
	return g.askBy(dst, due, func(c *connection) (*uplink.Link[connection], *link.Open) {
		l, err := c.channelLocked()
		if err != nil {
			l = nil
		}
		return l, c.opening.open
	})
}

// askBy is ask with channels that channel makes, which is called under the mutex of the
// connection.
func (g *Gateway) askBy(dst []request, due []*opening, channel func(c *connection) (*uplink.Link[connection], *link.Open)) []request {
	fl, _ := g.flushers.Get().(*flusher)
	for _, o := range due {
		c := o.c
		c.mu.Lock()
		if c.opening == o { // else it has ended
			l, open := channel(c)
			switch {
			case l != nil && open.Resume != 0 && !l.Moves():
				c.olderLocked(l)
			case l != nil:
				up := fl.frames(l)
				up.Frames = append(up.Frames, link.UpFrame{Kind: link.UpOpen, Channel: c.channel, Open: open})
				dst = append(dst, request{c, l, c.channel})
			default:
				c.parkLocked(nil)
			}
		}
		c.mu.Unlock()
	}
	lost := fl.send(g)
	g.flushers.Put(fl)
	for _, a := range dst {
		a.c.asked(a.link, a.channel, slices.Contains(lost, a.link))
	}
	g.flush()
	return dst
}
