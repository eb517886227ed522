// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"crypto/rand"
	"time"

	"github.com/manormq/manor/gateway/conn"
	"github.com/manormq/manor/tenancy"
)

// decided tells of what a tenant's own policy has decided: the log of what it has
// denied, at most once a minute for a connection, and who records decisions. It names the
// first denial of a publish and of a subscription, if there is one.
func (c *connection) decided(fx *conn.Effects) (published, subscribed string) {
	if len(fx.Decided) == 0 {
		return "", ""
	}
	grant := c.m.Grant()
	for i := range fx.Decided {
		q := &fx.Decided[i]
		d := &tenancy.Decision{
			ID: "dec_" + rand.Text(), At: time.Now().UTC(), Revision: grant.Revision - tenancy.GrantRevision(0), Class: grant.Class(),
			Client: tenancy.Subject{ClientID: c.clientID, Username: c.username}, Question: q.Question, Allowed: q.Allowed,
		}
		if a := c.seen(); a != nil {
			d.Client = a.Client
		}
		if now := d.At.UnixMilli(); !q.Allowed && now-c.deniedLogged >= refusalEvery.Milliseconds() {
			c.deniedLogged = now
			x := grant.Explain(q.Question)
			at := ""
			if x.Entry != nil {
				at = x.Entry.At
			}
			c.gw.log.Warn("denied by the tenant's policy; further denials of this connection are only counted for a minute",
				"tenant", c.tenant, "client_id", short(c.clientID), "decision", d.ID, "action", q.Action, "topic", short(q.Topic), "qos", q.QoS, "retain", q.Retain,
				"revision", d.Revision, "class", d.Class, "at", at, "why", short(x.Why))
		}
		switch {
		case q.Allowed:
		case q.Action == tenancy.ActionPublish && published == "":
			published = "decision " + d.ID
		case q.Action == tenancy.ActionSubscribe && subscribed == "":
			subscribed = "decision " + d.ID
		}
		if c.gw.cfg.Record != nil {
			c.gw.cfg.Record(c.tenant, d)
		}
	}
	return published, subscribed
}
