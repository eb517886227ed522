// SPDX-License-Identifier: Apache-2.0

// Package dataplane is how the API reaches the brokers: as a gateway without
// sockets. It publishes over one channel per tenant, opened when it is first
// needed, and asks the brokers' questions. Run owns one goroutine, which keeps
// the link; link.Gateway's methods are called by the link. It knows no HTTP.
package dataplane

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/tenancy"
)

// clientPrefix begins the client ids of the API's own channels. A device may
// choose one that begins so too.
const clientPrefix = "$api-"

// Own reports whether the session is one of the API's own channels. It goes by
// the label, which no device can choose.
func Own(c *link.ClientInfo) bool { return c.Labels.Listener == link.ListenerAPI }

// MayBeOwn reports whether the client id could be of one of the API's own
// channels.
func MayBeOwn(id string) bool { return strings.HasPrefix(id, clientPrefix) }

// Config says what a Plane stands on.
type Config struct {
	// Dial opens a link to the broker.
	Dial func(ctx context.Context, gw link.Gateway) (link.Broker, error)
	// Elsewhere has the next Dial begin with another broker than the last; nil where there is but
	// one. It is called when the broker of the link serves no partition, and must not wait.
	Elsewhere func()
	// Name is the node's.
	Name string
	Log  *slog.Logger
}

// Times of a Plane.
const (
	answerTimeout = 10 * time.Second // of a call whose context has no deadline
	channelIdle   = time.Minute      // after which a channel is closed
	redialFirst   = 50 * time.Millisecond
	redialLast    = 2 * time.Second
)

// Plane is a link to the brokers for the API. It is safe for concurrent use.
// Make it with New; it works while Run runs.
type Plane struct {
	cfg    Config
	log    *slog.Logger
	client string // the client id of its channels
	lost   chan error

	mu       sync.Mutex
	broker   link.Broker               // guarded by mu; nil while there is no link
	left     link.Broker               // guarded by mu; the broker that was given up last by elsewhere
	up       chan struct{}             // guarded by mu; closed when there is a link
	tenants  map[string]*channel       // guarded by mu
	channels map[link.Channel]*channel // guarded by mu
	next     link.Channel              // guarded by mu; never used twice
	asked    map[uint64]chan result    // guarded by mu; questions without an answer
	question uint64                    // guarded by mu
}

var _ link.Featured = (*Plane)(nil)

// Features implements link.Featured: the API has no history of clients to which notes
// could go, but its publishes are refused like theirs.
func (p *Plane) Features() uint32 {
	return link.FeatureOwners | link.FeatureRefusals | link.FeatureGrowth | link.FeatureForget | link.FeatureLooks
}

// Ack is how a publish was acknowledged.
type Ack struct {
	// Reason is Success, or NoMatchingSubscribers, if it was accepted.
	Reason mqtt.ReasonCode
	// Quota is what a broker names that refuses it with QuotaExceeded: QuotaRetained or
	// QuotaRetainedRate; empty if it names none.
	Quota string
}

// What a broker refuses a publish by: the link.Note.Reason of it. QuotaRetained is for the
// quotas retained_messages and retained_bytes.
const (
	QuotaRetained     = "retained_quota"
	QuotaRetainedRate = "retained_rate"
)

type result struct {
	answer *link.Answer
	err    error
}

// New returns a Plane without a link.
func New(cfg Config) (*Plane, error) {
	var bits [10]byte
	if _, err := rand.Read(bits[:]); err != nil {
		return nil, errs.New(errs.Internal, "random bits: %w", err)
	}
	return &Plane{
		cfg:      cfg,
		log:      cfg.Log,
		client:   clientPrefix + cfg.Name + "-" + strings.ToLower(base32.StdEncoding.EncodeToString(bits[:])),
		lost:     make(chan error, 1),
		up:       make(chan struct{}),
		tenants:  map[string]*channel{},
		channels: map[link.Channel]*channel{},
		asked:    map[uint64]chan result{},
	}, nil
}

// Check is a health check: nil while there is a link.
func (p *Plane) Check(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broker == nil {
		return errs.New(errs.Unavailable, "no broker is linked")
	}
	return nil
}

// Run keeps a link until ctx is done.
func (p *Plane) Run(ctx context.Context) error {
	wait := redialFirst
	for ctx.Err() == nil {
		b, err := p.cfg.Dial(ctx, p)
		if err != nil {
			if ctx.Err() == nil {
				p.log.Warn("no link to a broker", "error", err, "next_try_in", wait)
			}
			sleep(ctx, wait)
			wait = min(2*wait, redialLast)
			continue
		}
		wait = redialFirst
		p.linked(b)
		why := p.keep(ctx)
		p.unlinked(why)
		if err := b.Close(); err != nil {
			p.log.Debug("link closed", "error", err)
		}
		if ctx.Err() == nil {
			level := slog.LevelWarn
			if errors.Is(why, errServesNothing) {
				level = slog.LevelInfo
			}
			p.log.Log(ctx, level, "link to a broker lost", "error", why)
			sleep(ctx, wait)
		}
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// keep closes idle channels until the link is lost or ctx is done.
func (p *Plane) keep(ctx context.Context) error {
	tick := time.NewTicker(channelIdle / 2)
	defer tick.Stop()
	for {
		select {
		case err := <-p.lost:
			return err
		case <-tick.C:
			p.closeIdle(time.Now().Add(-channelIdle))
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (p *Plane) linked(b link.Broker) {
	select {
	case why := <-p.lost:
		p.log.Debug("the link before was lost", "error", why)
	default:
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.broker = b
	close(p.up)
}

// unlinked ends all that hung on the link.
func (p *Plane) unlinked(why error) {
	p.mu.Lock()
	p.broker = nil
	p.up = make(chan struct{})
	channels, asked := p.channels, p.asked
	p.channels, p.tenants, p.asked = map[link.Channel]*channel{}, map[string]*channel{}, map[uint64]chan result{}
	p.mu.Unlock()
	err := errs.New(errs.Unavailable, "the link to the broker was lost: %w", why)
	for _, c := range channels {
		c.end(err)
	}
	for _, a := range asked {
		a <- result{err: err}
	}
}

// linkedBroker waits for a link.
func (p *Plane) linkedBroker(ctx context.Context) (link.Broker, error) {
	for {
		p.mu.Lock()
		b, up := p.broker, p.up
		p.mu.Unlock()
		if b != nil {
			return b, nil
		}
		select {
		case <-up:
		case <-ctx.Done():
			return nil, errs.New(errs.Unavailable, "no broker can be reached: %w", ctx.Err())
		}
	}
}

func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, answerTimeout)
}

// Query asks the broker. What the answer holds is the caller's.
func (p *Plane) Query(ctx context.Context, q link.Query) (*link.Answer, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	b, err := p.linkedBroker(ctx)
	if err != nil {
		return nil, err
	}
	if q.Kind == link.QueryCell && !link.Takes(b, link.FeatureGrowth) {
		return nil, errs.New(errs.Unavailable, "the broker of the API's link is older than cells that grow by themselves: upgrade the brokers first")
	}
	if q.Kind == link.QueryForget && !link.Takes(b, link.FeatureForget) {
		return nil, errs.New(errs.Unavailable, "the broker of the API's link is older than purges of tenants: upgrade the brokers first")
	}
	if (q.Kind == link.QueryQueue || q.Kind == link.QueryMatch) && !link.Takes(b, link.FeatureLooks) {
		return nil, errs.New(errs.Unavailable, "the broker of the API's link is older than this question: upgrade the brokers first")
	}
	done := make(chan result, 1)
	p.mu.Lock()
	if p.broker != b {
		p.mu.Unlock()
		return nil, errs.New(errs.Unavailable, "the link to the broker was lost")
	}
	p.question++
	q.ID = p.question
	p.asked[q.ID] = done
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.asked, q.ID)
	}()
	if err := b.Send(&link.Up{Frames: []link.UpFrame{{Kind: link.UpQuery, Query: &q}}}); err != nil {
		return nil, errs.New(errs.Unavailable, "ask the broker: %w", err)
	}
	b.Flush()
	select {
	case r := <-done:
		if r.err == nil && r.answer.Error != "" {
			return nil, errs.New(errs.Invalid, "%s", r.answer.Error)
		}
		if r.err == nil && q.Kind == link.QueryUsage {
			// The tenant does not pay for our own way in.
			r.answer.Usage.Connections = max(0, r.answer.Usage.Connections-p.own(q.Tenant))
		}
		return r.answer, r.err
	case <-ctx.Done():
		return nil, errs.New(errs.Unavailable, "the broker did not answer: %w", ctx.Err())
	}
}

// own is how many channels of a tenant this plane has open.
func (p *Plane) own(tenant string) (n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.channels {
		if c.tenant == tenant {
			n++
		}
	}
	return n
}

// Publish publishes m, with its own QoS, for the tenant and returns when it is
// acknowledged as that QoS asks; at QoS 0 when it was handed over.
func (p *Plane) Publish(ctx context.Context, t *tenancy.Tenant, m mqtt.Message) (Ack, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	for {
		b, err := p.linkedBroker(ctx)
		if err != nil {
			return Ack{}, err
		}
		c := p.channel(b, t)
		if c == nil {
			continue // the link was lost meanwhile
		}
		a, err := c.publish(ctx, &m)
		if !errors.Is(err, errRetired) {
			return a, err
		}
	}
}

// channel returns the tenant's channel over the link, and opens one if there is
// none or the tenant has changed since.
func (p *Plane) channel(b link.Broker, t *tenancy.Tenant) *channel {
	p.mu.Lock()
	if p.broker != b {
		p.mu.Unlock()
		return nil
	}
	old := p.tenants[t.ID]
	if old != nil && old.revision >= t.Revision {
		p.mu.Unlock()
		return old
	}
	p.next++
	c := newChannel(p, b, p.next, t)
	p.tenants[t.ID] = c
	p.channels[c.id] = c
	p.mu.Unlock()
	if old != nil {
		old.retire()
	}
	c.open(t, p.client)
	return c
}

func (p *Plane) closeIdle(since time.Time) {
	p.mu.Lock()
	var idle []*channel
	for _, c := range p.tenants {
		if c.idleSince(since) {
			idle = append(idle, c)
		}
	}
	for _, c := range idle {
		delete(p.tenants, c.tenant)
	}
	p.mu.Unlock()
	for _, c := range idle {
		c.retire()
	}
}

// forget removes a channel that has ended.
func (p *Plane) forget(c *channel) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.channels, c.id)
	if p.tenants[c.tenant] == c {
		delete(p.tenants, c.tenant)
	}
}

// Receive implements link.Gateway.
func (p *Plane) Receive(b *link.Down) {
	for i := range b.Frames {
		f := &b.Frames[i]
		if f.Kind == link.DownAnswer {
			p.answered(f.Answer)
			continue
		}
		p.mu.Lock()
		c := p.channels[f.Channel]
		p.mu.Unlock()
		if c != nil {
			c.receive(f)
		}
	}
}

func (p *Plane) answered(a *link.Answer) {
	p.mu.Lock()
	done := p.asked[a.ID]
	delete(p.asked, a.ID)
	p.mu.Unlock()
	if done == nil {
		return // nobody waits any more
	}
	// What a batch holds is gone when Receive returns.
	own := *a
	own.Clients = append([]link.ClientInfo(nil), a.Clients...)
	for i := range own.Clients {
		own.Clients[i].Subscriptions = append([]mqtt.Subscription(nil), a.Clients[i].Subscriptions...)
	}
	own.Retained = append([]link.RetainedInfo(nil), a.Retained...)
	for i := range own.Retained {
		own.Retained[i].Message = a.Retained[i].Message.Clone()
	}
	done <- result{answer: &own}
}

// errServesNothing ends a link for one to another broker.
var errServesNothing = errors.New("dataplane: the broker serves no partition now, another one may")

// elsewhere gives up the link to a broker that serves no partition, if there are others; once for
// each link, whatever else comes of that.
func (p *Plane) elsewhere(b link.Broker) {
	p.mu.Lock()
	first := p.cfg.Elsewhere != nil && p.broker == b && p.left != b
	p.left = b
	p.mu.Unlock()
	if first {
		p.cfg.Elsewhere()
		p.Lost(errServesNothing)
	}
}

// Flush implements link.Gateway: there is nothing to write out.
func (p *Plane) Flush() {}

// Lost implements link.Gateway.
func (p *Plane) Lost(err error) {
	select {
	case p.lost <- err:
	default:
	}
}
