// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"slices"
	"sync"
	"time"

	"github.com/manormq/manor/gateway/conn"
	"github.com/manormq/manor/infra/level"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/tenancy/events"
)

// quotaReasons are the reason codes with which a quota or overload refuses a client.
var quotaReasons = []mqtt.ReasonCode{mqtt.QuotaExceeded, mqtt.ConnectionRateExceeded, mqtt.ServerBusy, mqtt.MessageRateTooHigh}

// tell has the tenant's history say that something has happened to c. It may be called
// under c.mu.
func (c *connection) tell(tenant string, e events.Event) {
	w := c.gw.cfg.Events
	if w == nil {
		return
	}
	cfg := c.in.Listener.Config()
	e.At, e.ClientID, e.Username = time.Now().UTC(), short(c.clientID), short(c.username)
	e.Address, e.Listener, e.Gateway = c.in.Peer.String(), cfg.Label(), c.gw.cfg.Name
	if v := c.m.Version(); v != 0 {
		e.Protocol = v.String()
	}
	w.Add(tenant, e)
}

// tellEndLocked tells of an end. before CONNACK it is a refusal.
func (c *connection) tellEndLocked(cl conn.Close) {
	if !c.opened {
		if cl.Reason.Failed() {
			c.tell(c.tenant, refused(cl.Reason, cl.Text))
		}
		return
	}
	e := events.Event{Kind: events.Disconnected, Reason: cl.Reason.String(), Why: cl.Text}
	switch {
	case cl.ByClient && cl.Cause == link.CloseLost:
		e.Reason = "connection lost"
	case slices.Contains(quotaReasons, cl.Reason):
		e.Kind = events.Throttled
	}
	c.tell(c.tenant, e)
}

// refused is that a client was.
func refused(r mqtt.ReasonCode, why string) events.Event {
	e := events.Event{Kind: events.Denied, Reason: r.String(), Why: why}
	if slices.Contains(quotaReasons, r) {
		e.Kind = events.Throttled
	}
	return e
}

// tellRefusal tells of a client that was refused before it was one of its tenant's.
// username is what it says of itself.
func (c *connection) tellRefusal(t *turn, r conn.Refusal, why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.tenant == "" || t.stranger || c.ending || c.knownLocked() {
		return // nobody's, or its end is told
	}
	if c.username == "" {
		c.username = t.username
	}
	c.tell(t.tenant, refused(r.Reason, why))
}

// knownLocked reports whether tenant is set, and c's to stay.
func (c *connection) knownLocked() bool { return c.opened || c.link != nil || c.opening != nil }

// eventOf is what a broker has noted.
func eventOf(n *link.Note) events.Event {
	if n.Level != level.Below {
		return events.OfQuota(time.Now(), n.Reason, n.Level, float64(n.Count)/100)
	}
	e := events.Event{Kind: events.Throttled, Reason: n.Reason, Why: n.Text}
	if n.Dropped {
		e.Kind = events.Dropped
	}
	if n.Count > 1 {
		e.Count = int(n.Count)
	}
	return e
}

// noted tells what a broker has noted of a client that has no connection here.
func (g *Gateway) noted(n *link.Note) {
	if g.cfg.Events == nil {
		return
	}
	if n.Level != level.Below && !g.levels.first(n, time.Now()) {
		return
	}
	e := eventOf(n)
	e.At, e.ClientID, e.Gateway = time.Now().UTC(), short(string(n.ClientID)), g.cfg.Name
	g.cfg.Events.Add(n.Tenant, e)
}

// levels are what brokers have told of quotas lately: each tells for itself. Its method may be
// called concurrently.
type levels struct {
	mu sync.Mutex
	at map[levelKey]time.Time // guarded by mu
}

type levelKey struct {
	tenant, quota string
	at            level.Level
}

// levelsMost bounds how many are remembered; beyond it what is older is forgotten.
const levelsMost = 4096

// first reports whether no broker has told the same in the last minutes.
func (l *levels) first(n *link.Note, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := levelKey{n.Tenant, n.Reason, n.Level}
	if at, ok := l.at[k]; ok && now.Sub(at) < level.Quiet {
		return false
	}
	if l.at == nil {
		l.at = make(map[levelKey]time.Time)
	}
	if len(l.at) >= levelsMost {
		for k, at := range l.at {
			if now.Sub(at) >= level.Quiet || len(l.at) >= levelsMost {
				delete(l.at, k)
			}
		}
	}
	l.at[k] = now
	return true
}
