// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/tenancy"
)

// inFlight is how many publishes of a tenant wait for their acknowledgement at
// the same time; more wait for a place.
const inFlight = 256

// errRetired says that a channel takes no more publishes, another one does.
var errRetired = errors.New("dataplane: the channel was retired")

// channel publishes for one tenant over one link. Two locks: send keeps the
// frames in order while the link takes them, which may run Receive; mu is never
// held while something is sent.
type channel struct {
	plane    *Plane
	broker   link.Broker
	id       link.Channel
	tenant   string
	revision uint64
	places   chan struct{} // holds one token per publish in flight
	gone     chan struct{} // closed when the channel is retired or has ended
	once     sync.Once     // closes gone

	send   sync.Mutex
	up     link.Up // guarded by send
	closed bool    // guarded by send; the broker was told, nothing may follow

	mu      sync.Mutex
	opened  bool                     // guarded by mu
	granted uint64                   // guarded by mu; bytes that may be sent in all
	sent    uint64                   // guarded by mu; bytes sent in all
	changed chan struct{}            // guarded by mu; closed when opened or granted change
	waiting map[uint16]chan ackOrErr // guarded by mu; publishes by Packet Identifier
	last    uint16                   // guarded by mu; the last Packet Identifier
	named   string                   // guarded by mu; the quota that refuses what the next frame acknowledges
	ended   error                    // guarded by mu
	retired bool                     // guarded by mu
	used    time.Time                // guarded by mu
}

type ackOrErr struct {
	kind   mqtt.AckKind
	reason mqtt.ReasonCode
	quota  string
	err    error
}

func newChannel(p *Plane, b link.Broker, id link.Channel, t *tenancy.Tenant) *channel {
	return &channel{
		plane: p, broker: b, id: id, tenant: t.ID, revision: t.Revision,
		places:  make(chan struct{}, inFlight),
		gone:    make(chan struct{}),
		changed: make(chan struct{}),
		waiting: map[uint16]chan ackOrErr{},
		used:    time.Now(),
	}
}

// open asks the broker for the channel: a clean session that subscribes to
// nothing.
func (c *channel) open(t *tenancy.Tenant, client string) {
	l := t.Limits
	// A channel that replaces another one must not take its session over.
	client = fmt.Sprintf("%s-%d", client, c.id)
	c.write(link.UpFrame{Kind: link.UpOpen, Open: &link.Open{
		Tenant: c.tenant, ClientID: mqtt.ClientID(client), CleanStart: true, ReceiveMaximum: 1, Credit: 1 << 16,
		Limits: link.Limits{
			QueueMessages: l.QueueMessages, QueueBytes: l.QueueBytes, Subscriptions: l.SubscriptionsClient,
			ReceiveMaximum: inFlight, Retained: l.RetainedMessages, RetainedBytes: l.RetainedBytes, Sessions: l.PersistentSessions,
		},
		Partitions: uint16(min(max(t.Partitions, 0), link.MaxPartitions)), GrantRevision: grantRevision(t),
		Labels: link.Labels{Protocol: "5", Listener: link.ListenerAPI, Gateway: c.plane.cfg.Name},
	}})
}

func grantRevision(t *tenancy.Tenant) uint64 {
	if t.Grant == nil {
		return 0
	}
	return t.Grant.Revision
}

// write sends one frame. A link that does not take it is lost, and says so.
func (c *channel) write(f link.UpFrame) {
	c.send.Lock()
	defer c.send.Unlock()
	if c.closed {
		return
	}
	c.closed = f.Kind == link.UpClose
	f.Channel = c.id
	if f.Kind == link.UpAck {
		// The broker counts it. It does not wait for the window: a publish that
		// was begun is seen to its end, and inFlight bounds those.
		c.mu.Lock()
		c.sent += uint64(f.Cost())
		c.mu.Unlock()
	}
	c.up.Frames = append(c.up.Frames[:0], f)
	if err := c.broker.Send(&c.up); err != nil {
		c.end(errs.New(errs.Unavailable, "the link to the broker was lost: %w", err))
	}
	c.up.Reset()
	c.broker.Flush()
}

// publish sends m and waits for its acknowledgement.
func (c *channel) publish(ctx context.Context, m *mqtt.Message) (Ack, error) {
	select {
	case c.places <- struct{}{}:
	case <-c.gone: // retire takes all places
		if err := c.why(); err != nil {
			return Ack{}, err
		}
		return Ack{}, errRetired
	case <-ctx.Done():
		return Ack{}, errs.New(errs.Unavailable, "too many publishes of the tenant are waiting: %w", ctx.Err())
	}
	// The place of a publish whose caller gives up stays taken until its
	// acknowledgement comes: see forgo.
	release := func() { <-c.places }
	frame := link.UpFrame{Kind: link.UpPublish, Message: *m}
	if err := c.window(ctx, uint64(frame.Cost())); err != nil {
		release()
		return Ack{}, err
	}
	if m.QoS == mqtt.AtMostOnce {
		defer release()
		c.write(frame)
		return Ack{}, c.why()
	}
	id, acks, err := c.begin()
	if err != nil {
		release()
		return Ack{}, err
	}
	frame.PacketID = id
	c.write(frame)
	a, err := c.await(ctx, id, acks, release)
	if err != nil {
		return Ack{}, err
	}
	if m.QoS == mqtt.ExactlyOnce && !a.reason.Failed() {
		reason := a.reason
		c.write(link.UpFrame{Kind: link.UpAck, Ack: mqtt.Pubrel, PacketID: id})
		if a, err = c.await(ctx, id, acks, release); err != nil {
			return Ack{}, err
		}
		if !a.reason.Failed() {
			a.reason = reason
		}
	}
	c.finish(id)
	release()
	return Ack{Reason: a.reason, Quota: a.quota}, nil
}

// window waits until the broker takes n more bytes. As on every channel, what
// is begun within the window may end beyond it.
func (c *channel) window(ctx context.Context, n uint64) error {
	for {
		c.mu.Lock()
		switch {
		case c.ended != nil:
			c.mu.Unlock()
			return c.ended
		case c.retired:
			c.mu.Unlock()
			return errRetired
		case c.opened && c.sent < c.granted:
			c.sent += n
			c.used = time.Now()
			c.mu.Unlock()
			return nil
		}
		changed := c.changed
		c.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return errs.New(errs.Unavailable, "the broker takes no more from this tenant now: %w", ctx.Err())
		}
	}
}

// begin takes a Packet Identifier that is not in use.
func (c *channel) begin() (uint16, chan ackOrErr, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended != nil {
		return 0, nil, c.ended
	}
	for {
		c.last++
		if _, taken := c.waiting[c.last]; !taken && c.last != 0 {
			acks := make(chan ackOrErr, 2)
			c.waiting[c.last] = acks
			return c.last, acks, nil
		}
	}
}

func (c *channel) finish(id uint16) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, id)
}

// await waits for the next acknowledgement of a publish. If ctx ends first, the
// publish is seen to its end by another goroutine.
func (c *channel) await(ctx context.Context, id uint16, acks chan ackOrErr, release func()) (ackOrErr, error) {
	select {
	case a := <-acks:
		if a.err != nil {
			c.finish(id)
			release()
		}
		return a, a.err
	case <-ctx.Done():
		go c.forgo(id, acks, release)
		return ackOrErr{}, errs.New(errs.Unavailable, "the broker did not acknowledge in time; the message may still be delivered: %w", ctx.Err())
	}
}

// forgo ends a publish that nobody waits for. It ends with the channel at the
// latest.
func (c *channel) forgo(id uint16, acks chan ackOrErr, release func()) {
	for a := range acks {
		if a.err == nil && a.kind == mqtt.Pubrec && !a.reason.Failed() {
			c.write(link.UpFrame{Kind: link.UpAck, Ack: mqtt.Pubrel, PacketID: id})
			continue
		}
		break
	}
	c.finish(id)
	release()
}

// receive takes a frame of the broker. It does not block.
func (c *channel) receive(f *link.DownFrame) {
	switch f.Kind {
	case link.DownOpened:
		c.grant(f.Bytes, true)
	case link.DownWindow:
		c.grant(f.Bytes, false)
	case link.DownNote:
		if f.Note.Count == 0 {
			c.mu.Lock()
			c.named = f.Note.Reason
			c.mu.Unlock()
		}
	case link.DownAck:
		c.mu.Lock()
		acks, quota := c.waiting[f.PacketID], c.named
		c.named = ""
		c.mu.Unlock()
		if acks != nil {
			select {
			case acks <- ackOrErr{kind: f.Ack, reason: f.Reason, quota: quota}:
			default: // more than a publish can have
			}
		}
	case link.DownRefused, link.DownClose:
		if f.Kind == link.DownClose && f.Reason == mqtt.Success {
			return // the answer to close
		}
		c.end(errs.New(errs.Unavailable, "the broker ended the API's channel: %s (%s)", f.Text, f.Reason))
		// The broker keeps the channel until it is closed from here, too, and
		// must not be called from within Receive.
		go c.close()
	case link.DownMoved: // no channel is there: nothing is to be closed
		c.mu.Lock()
		refused := !c.opened // else its partition has moved, and there may be others
		c.mu.Unlock()
		c.end(errs.New(errs.Unavailable, "the broker of the API's link serves no partition now; try again"))
		if refused {
			c.plane.elsewhere(c.broker)
		}
	default: // nothing is subscribed
	}
}

func (c *channel) grant(total uint64, opened bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.opened = c.opened || opened
	c.granted = max(c.granted, total)
	close(c.changed)
	c.changed = make(chan struct{})
}

// end ends the channel with all its publishes.
func (c *channel) end(err error) {
	c.mu.Lock()
	if c.ended != nil {
		c.mu.Unlock()
		return
	}
	c.ended = err
	waiting := c.waiting
	c.waiting = map[uint16]chan ackOrErr{}
	close(c.changed)
	c.changed = make(chan struct{})
	c.mu.Unlock()
	c.once.Do(func() { close(c.gone) })
	c.plane.forget(c)
	for _, acks := range waiting {
		select {
		case acks <- ackOrErr{err: err}:
		default: // both acknowledgements have come
		}
	}
}

func (c *channel) why() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ended
}

// retire takes no more publishes, and closes the channel when those in flight
// are done.
func (c *channel) retire() {
	c.mu.Lock()
	c.retired = true
	close(c.changed)
	c.changed = make(chan struct{})
	c.mu.Unlock()
	c.once.Do(func() { close(c.gone) })
	go func() {
		for range inFlight { // every place free, or the channel ended
			c.places <- struct{}{}
		}
		c.close()
		c.plane.forget(c)
	}()
}

// close tells the broker that the channel is not used any more.
func (c *channel) close() {
	c.write(link.UpFrame{Kind: link.UpClose, Close: &link.Close{Cause: link.CloseNormal}})
}

func (c *channel) idleSince(t time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.waiting) == 0 && c.used.Before(t)
}
