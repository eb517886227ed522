// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"fmt"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/manormq/manor/gateway/conn"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/tenancy"
)

// Who is kept out whoever it is: by a ban, because it flaps, by the allow-list.

// Labels of mqtt_gateway_kept_out_total.
const (
	keptBan      = "ban"
	keptFlapping = "flapping"
	keptAddress  = "address"
	keptMethod   = "method"
)

const notAllowed = "the tenant does not allow connections from this address"

// banned is the ban that holds for the client now, or nil. username is empty while
// it is not known.
func (c *connection) banned(tenant, username string, now time.Time) *tenancy.Ban {
	who := tenancy.Client{ClientID: c.clientID, Username: username, Address: c.in.Peer.Addr()}
	if cert := c.certOf(tenant); cert != nil {
		who.Certificate = cert.Leaf()
	}
	return c.gw.cfg.Directory.Bans(tenant).Match(who, now)
}

// kept says why a client of the tenant is kept out. Before it is known who it is
// username is empty, and nobody has to be asked for a password.
func (c *connection) kept(t *tenancy.Tenant, username string) conn.Refusal {
	if !t.Networks.Allow(c.in.Peer.Addr()) {
		c.gw.metrics.keptOut.WithLabelValues(keptAddress).Inc()
		return conn.Refusal{Reason: mqtt.NotAuthorized, Text: notAllowed}
	}
	if b := c.banned(t.ID, username, time.Now()); b != nil {
		c.gw.metrics.keptOut.WithLabelValues(keptBan).Inc()
		return conn.Refusal{Reason: mqtt.Banned, Text: b.Text(), Why: b.Text() + " (" + b.ID + ")"}
	}
	return conn.Refusal{}
}

// lawful checks a client that is known against what its tenant asks of it now.
func (c *connection) lawful(id *tenancy.Identity) conn.Refusal {
	if r := c.kept(id.Tenant, id.Username); r.Reason.Failed() {
		return r
	}
	return c.certified(id)
}

// endBanned ends those of a tenant's connections that are banned.
func (g *Gateway) endBanned(tenant string, all []*connection) {
	now, ended := time.Now(), 0
	for _, c := range all {
		b := c.banned(tenant, c.username, now)
		if b == nil {
			continue
		}
		// A CONNACK says so; DISCONNECT has no 0x8A and becomes 0x98 (MQTT 5 §3.14.2.1).
		if !c.expel(conn.Close{Ended: true, Cause: link.CloseRevoked, Reason: mqtt.Banned, Text: b.Text()}) {
			continue
		}
		g.metrics.keptOut.WithLabelValues(keptBan).Inc()
		g.log.Info("client disconnected: it is banned", "tenant", tenant, "client_id", short(c.clientID), "username", short(c.username), "peer", c.in.Peer.String(), "ban", b.ID)
		ended++
	}
	if ended > 0 {
		g.flush()
	}
}

// flaps counts the CONNECTs of client ids that were right, for tenants that ban who
// connects again and again. What strangers send does not count, so that nobody can
// have another's client id banned. It is safe for concurrent use.
type flaps struct {
	mu   sync.Mutex
	seen *lru.Cache[string, *flapper] // guarded by mu
	// local are those that only this gateway has banned so far, by tenant and client
	// id; guarded by mu.
	local map[string]map[string]*flapper
}

// flapsKept is how many client ids are remembered; beyond it the one that was quiet
// for longest is forgotten.
const flapsKept = 100_000

// flapper is one client id: how often it has connected in this window and in the one
// before, and until when it is banned here.
type flapper struct {
	window    int64 // number of this window since 1970
	now, last int
	until     time.Time
}

func newFlaps() (*flaps, error) {
	seen, err := lru.New[string, *flapper](flapsKept)
	if err != nil {
		return nil, errs.New(errs.Internal, "flapping clients: %w", err)
	}
	return &flaps{seen: seen, local: map[string]map[string]*flapper{}}, nil
}

// count counts one more CONNECT. banned says that the client is banned here until
// then, and first that this CONNECT has led to it.
func (f *flaps) count(rule *tenancy.Flapping, tenant, clientID string, now time.Time) (until time.Time, banned, first bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := tenant + "\x00" + clientID
	x, ok := f.seen.Get(key)
	if !ok {
		x = &flapper{}
		f.seen.Add(key, x)
	}
	if now.Before(x.until) {
		return x.until, true, false
	}
	length := int64(rule.Window) * int64(time.Second)
	window := now.UnixNano() / length
	switch x.window {
	case window:
	case window - 1:
		x.last, x.now = x.now, 0
	default:
		x.last, x.now = 0, 0
	}
	x.window = window
	x.now++
	// Of the window before, that part counts that is within one length of now.
	left := float64(length-now.UnixNano()%length) / float64(length)
	if float64(x.now)+float64(x.last)*left <= float64(rule.Connects) {
		return time.Time{}, false, false
	}
	x.now, x.last = 0, 0
	x.until = now.Add(rule.Duration(1))
	if f.local[tenant] == nil {
		f.local[tenant] = map[string]*flapper{}
	}
	f.local[tenant][clientID] = x
	return x.until, true, true
}

// settle leaves those to the control plane of which it has made a ban: when somebody
// ends that, it is over here too.
func (f *flaps) settle(tenant string, bans *tenancy.Bans, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, x := range f.local[tenant] {
		made := bans.Match(tenancy.Client{ClientID: id}, now) != nil
		if made {
			x.until = time.Time{}
		}
		if made || now.After(x.until) {
			delete(f.local[tenant], id)
		}
	}
	if len(f.local[tenant]) == 0 {
		delete(f.local, tenant)
	}
}

// flapping bans a client that connects again and again. The control plane makes a ban
// of it that holds at every gateway; until that has come, and without it, this one
// keeps it out alone.
func (g *Gateway) flapping(c *connection, id *tenancy.Identity) conn.Refusal {
	rule := id.Tenant.Flapping
	if rule == nil || c.clientID == "" {
		return conn.Refusal{}
	}
	until, banned, first := g.flaps.count(rule, id.Tenant.ID, c.clientID, time.Now())
	if !banned {
		return conn.Refusal{}
	}
	g.metrics.keptOut.WithLabelValues(keptFlapping).Inc()
	if first {
		g.cfg.Directory.Flapped(tenancy.Flap{Tenant: id.Tenant.ID, ClientID: c.clientID, Connects: rule.Connects})
		g.log.Info("a client is banned: it connects again and again", "tenant", id.Tenant.ID, "client_id", short(c.clientID), "username", short(id.Username), "until", until)
	}
	return conn.Refusal{
		Reason: mqtt.Banned,
		Text:   fmt.Sprintf("banned until %s: more than %d connects in %d s", until.UTC().Format(time.RFC3339), rule.Connects, rule.Window),
	}
}

// certified counts what the method certificate has said.
func (m *metrics) certified(r conn.Refusal) {
	result := "accepted"
	if r.Reason.Failed() {
		result = "refused"
	}
	m.authentications.WithLabelValues(tenancy.AuthCertificate, result).Inc()
}

// authenticated counts what a method has said.
func (m *metrics) authenticated(method string, err error) {
	result := "refused"
	switch {
	case err == nil:
		result = "accepted"
	case passes(method, err):
		result = "passed"
	case errs.Is(err, errs.Unavailable):
		result = "unavailable"
	}
	m.authentications.WithLabelValues(method, result).Inc()
}
