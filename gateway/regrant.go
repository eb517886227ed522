// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/manormq/manor/gateway/conn"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/tenancy"
)

// arrival is the client as policies see it. p is nil for one that is connected.
func (c *connection) arrival(id *tenancy.Identity, p *packet.Connect) *tenancy.Arrival {
	cfg := c.in.Listener.Config()
	a := &tenancy.Arrival{
		Client:   tenancy.Subject{ClientID: c.clientID, Username: id.Username, Groups: id.Groups, Claims: id.Claims},
		IP:       c.in.Peer.Addr().Unmap().String(),
		Listener: cfg.Label(), Hostname: id.Tenant.Hostname, Protocol: c.m.Version().String(),
	}
	if cert := c.certOf(id.Tenant.ID); cert != nil {
		a.Client.CommonName = cert.CommonName()
	}
	if p != nil {
		a.CleanStart, a.KeepAlive = p.CleanStart, int(p.KeepAlive)
		if p.Will != nil {
			a.Will = string(p.Will.Message.Topic)
		}
	}
	return a
}

// authorize gives the identity of a client what the tenant's policy grants it.
func (c *connection) authorize(id *tenancy.Identity, p *packet.Connect) (*tenancy.Identity, conn.Refusal) {
	if id.Tenant.Policy.Live() == 0 && id.Groups == nil && id.Claims == nil && id.Limit == nil && id.Grant != nil && id.Grant.Default() {
		return id, conn.Refusal{} // most are so
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.gw.cfg.ConnectTimeout)
	defer cancel()
	a := c.arrival(id, p)
	grant, err := c.gw.cfg.Directory.Authorize(ctx, id.Tenant, a)
	if err != nil {
		return nil, c.gw.unauthorized(err)
	}
	if id.Tenant.Policy.Live() != 0 || a.Client.Groups != nil || a.Client.Claims != nil {
		c.makeSpecial().arrival.Store(a)
	}
	// What was told of the device before that has missed us.
	if now, r := c.gw.registered(id); r.Reason.Failed() || !slices.Equal(now.Groups, id.Groups) {
		return nil, conn.Refusal{Reason: mqtt.ServerBusy, Text: "something has changed meanwhile; try again"}
	}
	if id.Limit != nil {
		c.makeSpecial().limit = id.Limit
	}
	own := *id
	own.Grant = grant.Within(id.Limit)
	return &own, conn.Refusal{}
}

// othersThan reports whether a policy, also one that comes later, may decide otherwise
// by what the client shows of itself now.
func (sp *special) othersThan(id *tenancy.Identity) bool {
	a := sp.arrival.Load()
	return a != nil && !maps.Equal(a.Client.Claims, id.Claims)
}

// unauthorized maps an error of Authorize to what the client is told.
func (g *Gateway) unauthorized(err error) conn.Refusal {
	switch errs.KindOf(err) {
	case errs.Denied:
		g.metrics.policies[policyDenied].Inc()
		return conn.Refusal{Reason: mqtt.NotAuthorized, Text: err.Error()}
	case errs.Unavailable:
		g.metrics.policies[policyUnknown].Inc()
		return conn.Refusal{Reason: mqtt.ServerUnavailable, Text: "the tenant's policy cannot be asked now", Why: err.Error()}
	default:
	}
	g.metrics.policies[policyFailed].Inc()
	return conn.Refusal{Reason: mqtt.NotAuthorized, Text: "the tenant's policy cannot be followed", Why: err.Error()}
}

// What becomes of what policies are asked.
const (
	policyDenied = iota
	policyUnknown
	policyFailed
	policyRegranted
	policyEnded
	policyTaken
)

var policyEvents = [...]string{
	policyDenied: "denied", policyUnknown: "unknown", policyFailed: "failed", policyRegranted: "regranted", policyEnded: "ended", policyTaken: "subscriptions_taken",
}

const (
	// regrantsAtOnce is how many clients of a tenant are authorized at once when its
	// policy has changed.
	regrantsAtOnce = 16
	// regrantAgain is after what time those are asked about again of which nothing
	// could be heard.
	regrantAgain = time.Second
	// askAgain is after what time a broker is asked again that has not known.
	askAgain = 100 * time.Millisecond
)

// regrant gives connections of a tenant what its policy grants now. Who had a grant
// of another revision and cannot be authorized keeps it until that can be, and is
// asked about again.
func (g *Gateway) regrant(t *tenancy.Tenant, all []*connection) {
	var wg sync.WaitGroup
	var again, ended, done atomic.Int64
	turns := make(chan struct{}, regrantsAtOnce)
	for _, c := range all {
		if !c.outdated(t) {
			continue
		}
		turns <- struct{}{}
		wg.Go(func() {
			defer func() { <-turns }()
			switch err := c.regrant(t); {
			case err == nil:
				done.Add(1)
			case errs.Is(err, errs.Unavailable):
				again.Add(1)
			default:
				ended.Add(1)
			}
		})
	}
	wg.Wait()
	if done.Load()+ended.Load()+again.Load() == 0 {
		return
	}
	g.flush()
	g.log.Info("a tenant's policy has changed for live connections", "tenant", t.ID, "revision", t.Policy.Live(),
		"connections", done.Load(), "ended", ended.Load(), "later", again.Load())
	if again.Load() > 0 {
		g.recheckLater(t.ID)
	}
}

// outdated reports whether the connection has the grant of another revision than the
// tenant's.
func (c *connection) outdated(t *tenancy.Tenant) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending {
		return false
	}
	if !c.opened {
		c.stale = true
		return false
	}
	return c.m.Grant() != nil && c.m.Grant().Revision != t.Policy.Grant()
}

// regrant authorizes the client again, and ends its connection unless that
// succeeds or nothing can be heard.
func (c *connection) regrant(t *tenancy.Tenant) error {
	ctx, cancel := context.WithTimeout(context.Background(), c.gw.cfg.ConnectTimeout)
	defer cancel()
	var limit *tenancy.Grant
	if sp := c.special.Load(); sp != nil {
		limit = sp.limit
	}
	a, err := c.arrivedAs(t)
	if err != nil {
		return err
	}
	grant, err := c.gw.cfg.Directory.Authorize(ctx, t, a)
	if errs.Is(err, errs.Unavailable) {
		c.gw.metrics.policies[policyUnknown].Inc()
		c.gw.log.Warn("a client could not be authorized under its tenant's new policy; it keeps what it had until it can", "tenant", t.ID, "client_id", short(c.clientID), "error", err)
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending {
		return nil
	}
	if err != nil {
		c.gw.metrics.policies[policyEnded].Inc()
		r := c.gw.unauthorized(err)
		c.endLocked(conn.Close{Ended: true, Cause: link.CloseRevoked, Reason: mqtt.NotAuthorized, Text: r.Text})
		c.gw.log.Info("client disconnected: its tenant's policy has changed", "tenant", t.ID, "client_id", short(c.clientID), "why", err)
		return err
	}
	c.gw.metrics.policies[policyRegranted].Inc()
	c.m.Regrant(grant.Within(limit))
	c.holdLocked(t.Policy != nil && t.Policy.OnRevoke == tenancy.OnRevokeDisconnect)
	return nil
}

// regroup authorizes the connections of a device again, of which the registry says
// something else now, if its tenant has a policy. Of ch it reads whose they are only:
// what holds now is asked.
func (g *Gateway) regroup(ch tenancy.Change) {
	its := slices.DeleteFunc(g.registry.of(ch.Tenant), func(c *connection) bool { return c.username != ch.Username })
	if len(its) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), g.cfg.ConnectTimeout)
	defer cancel()
	t, err := g.cfg.Directory.Known(ctx, ch.Tenant)
	switch {
	case errs.Is(err, errs.Unavailable):
		g.log.Warn("a device has changed and its tenant cannot be looked up", "tenant", ch.Tenant, "error", err)
		g.regroupLater(ch)
		return
	case err != nil || t.Policy.Live() == 0:
		return // that a tenant is gone is told of itself
	}
	again := false
	for _, c := range its {
		if c.endUnopened() {
			continue
		}
		if err := c.regrant(t); errs.Is(err, errs.Unavailable) {
			again = true
		}
	}
	g.flush()
	if again {
		g.regroupLater(ch)
	}
}

func (g *Gateway) regroupLater(ch tenancy.Change) {
	time.AfterFunc(regrantAgain, func() { g.inOrder(changesOf{tenant: ch.Tenant}, func() { g.regroup(ch) }) })
}

// seen is the client as the tenant's policy saw it, or nil.
func (c *connection) seen() *tenancy.Arrival {
	if sp := c.special.Load(); sp != nil {
		return sp.arrival.Load()
	}
	return nil
}

// endUnopened ends a client that is on its way, of whom something has changed that was
// looked at already, and reports whether it was on its way.
func (c *connection) endUnopened() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.opened {
		return false
	}
	c.endLocked(conn.Close{Ended: true, Cause: link.CloseLost, Reason: mqtt.ServerBusy, Text: "something has changed meanwhile; try again"})
	return true
}

// arrivedAs is a connected client as its tenant's policy sees it now: with the groups
// that its device has now. The error is Unavailable if they cannot be known.
func (c *connection) arrivedAs(t *tenancy.Tenant) (*tenancy.Arrival, error) {
	id, r := c.gw.registered(&tenancy.Identity{Tenant: t, Username: c.username})
	if r.Reason.Failed() {
		return nil, errs.New(errs.Unavailable, "the groups of a device cannot be known now: %s", cmp.Or(r.Why, r.Text))
	}
	was := c.seen()
	if was == nil {
		was = c.arrival(id, nil)
	}
	now := *was
	now.Client.Groups = id.Groups
	c.mu.Lock()
	defer c.mu.Unlock()
	c.makeSpecial().arrival.Store(&now)
	return &now, nil
}

// holding is what the session of a connection may hold and is not granted.
type holding struct {
	// due: the broker is to be asked what it holds; id is that of the question.
	due bool
	id  uint64
	// reduction is what it is to take away, after which the connection ends if ends
	// is set.
	reduction conn.Reduction
	ends      bool
}

// holdLocked has the broker asked what the session holds.
func (c *connection) holdLocked(ends bool) {
	if c.holding == nil {
		c.holding = &holding{}
	}
	c.holding.due, c.holding.ends = true, ends
	c.markLocked()
}

// mayAskLocked reports whether the broker can be asked now: all that was granted
// before is on its way to it.
func (c *connection) mayAskLocked() bool {
	return c.holding != nil && c.holding.due && c.opened && c.moving == nil && !c.turning && c.sending == 0
}

// questions are those that brokers were asked about sessions.
type questions struct {
	mu   sync.Mutex
	last uint64
	open map[uint64]*connection
}

func (q *questions) add(c *connection) uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.open == nil {
		q.open = map[uint64]*connection{}
	}
	q.last++
	q.open[q.last] = c
	return q.last
}

func (q *questions) take(id uint64) *connection {
	q.mu.Lock()
	defer q.mu.Unlock()
	c := q.open[id]
	delete(q.open, id)
	return c
}

// holdFramesLocked appends what the broker is to be asked, or to take away, and
// reports whether something must come before what ends the connection.
func (c *connection) holdFramesLocked(up func() *link.Up) (first bool) {
	h := c.holding
	if c.mayAskLocked() {
		c.gw.questions.take(h.id) // of before
		h.due, h.id = false, c.gw.questions.add(c)
		u := up()
		u.Frames = append(u.Frames, link.UpFrame{Kind: link.UpQuery, Query: &link.Query{
			ID: h.id, Kind: link.QueryClient, Tenant: c.tenant, ClientID: mqtt.ClientID(c.clientID),
		}})
	}
	if h.reduction.Empty() {
		return false
	}
	u := up()
	u.Frames = append(u.Frames, h.reduction.Frames(c.channel)...)
	h.reduction = conn.Reduction{}
	return true
}

// held takes a broker's answer about what a session holds.
func (g *Gateway) held(a *link.Answer) {
	c := g.questions.take(a.ID)
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.holding
	if c.ending || h == nil || h.id != a.ID || h.due {
		return
	}
	h.id = 0
	if a.Error != "" || !a.Found || len(a.Clients) != 1 {
		c.holdAgain(askAgain)
		return
	}
	subscriptions := a.Clients[0].Subscriptions
	if grant := c.m.Grant(); grant.Asks() && len(subscriptions) > 0 {
		go c.checkHeld(h, grant, subscriptions)
		return
	}
	c.reduceLocked(c.m.Reduce(subscriptions, nil))
}

// holdAgain has the broker asked again after a time.
func (c *connection) holdAgain(after time.Duration) {
	time.AfterFunc(after, func() {
		c.mu.Lock()
		if !c.ending && c.holding != nil && c.holding.id == 0 {
			c.holdLocked(c.holding.ends)
		}
		c.mu.Unlock()
		c.gw.flush()
	})
}

// reduceLocked has what the session holds and is not granted taken away.
func (c *connection) reduceLocked(r conn.Reduction) {
	if r.Empty() {
		return
	}
	g, h := c.gw, c.holding
	g.metrics.policies[policyTaken].Add(float64(len(r.Gone)))
	first := ""
	if len(r.Gone) > 0 {
		first = r.Gone[0]
	}
	g.log.Info("subscriptions were taken away that the tenant's policy does not grant any more", "tenant", c.tenant, "client_id", short(c.clientID),
		"filters", len(r.Gone), "lowered", len(r.Lower), "first", short(first), "revision", c.m.Grant().Revision-1)
	h.reduction, h.ends = r, h.ends && len(r.Gone) > 0
	c.markLocked()
}
