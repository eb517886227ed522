// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"maps"
	"net"
	"regexp"
	"slices"
	"strings"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/operate"
	"github.com/manormq/manor/services/broker/shard"
)

// Sessions implements operate.Cluster.
func (d *desk) Sessions(ctx context.Context, q operate.SessionQuery) ([]operate.Session, error) {
	out, err := d.sessionsHere(&q)
	if err != nil {
		return nil, err
	}
	others := d.askOthers(ctx, &question{What: askSessions, Sessions: &q})
	for _, name := range slices.Sorted(maps.Keys(others)) {
		out = append(out, others[name].Sessions...)
	}
	by := func(field string) func(a, b operate.Session) int {
		return func(a, b operate.Session) int {
			return strings.Compare(operate.String(a[field]), operate.String(b[field]))
		}
	}
	// The last is the first to count.
	for _, field := range []string{"topic", "client_id", "mountpoint", "node"} {
		slices.SortStableFunc(out, by(field))
	}
	return out, nil
}

// filters are what fields must be.
type filters map[string]func(string) bool

// newFilters reads those of a question. The error is Invalid.
func newFilters(q *operate.SessionQuery) (filters, error) {
	out := filters{}
	for field, want := range q.Filters {
		pattern, is := strings.CutPrefix(want, "~")
		if !is {
			out[field] = func(s string) bool { return s == want }
			continue
		}
		re, err := regexp.Compile(pattern)
		if err != nil {
			return nil, errs.New(errs.Invalid, "--%s: expected a regular expression behind ~: %w", field, err)
		}
		out[field] = re.MatchString
	}
	return out, nil
}

func (f filters) match(s operate.Session) bool {
	for field, ok := range f {
		if !ok(operate.String(s[field])) {
			return false
		}
	}
	return true
}

// sessionsHere are the sessions that q asks for of the partitions that are served here.
// It waits for turns of the shards.
func (d *desk) sessionsHere(q *operate.SessionQuery) ([]operate.Session, error) {
	f, err := newFilters(q)
	if err != nil {
		return nil, err
	}
	limit := q.Limit
	if limit < 1 || limit > operate.MostRows {
		limit = operate.MostRows
	}
	var tenants []string
	d.shards.Tenants(func(id string, _ *shard.Tenant) { tenants = append(tenants, id) })
	slices.Sort(tenants)
	var out []operate.Session
	add := func(tenant string, c *link.ClientInfo) {
		for _, row := range d.rows(tenant, c, q.Topics) {
			if len(out) < limit && f.match(row) {
				out = append(out, row)
			}
		}
	}
	for _, tenant := range tenants {
		if len(out) == limit {
			break
		}
		if want, ok := f["mountpoint"]; ok && !want(tenant) {
			continue
		}
		if id := q.Filters["client_id"]; id != "" && id[0] != '~' {
			a := d.shards.AskHere(&link.Query{Kind: link.QueryClient, Tenant: tenant, ClientID: mqtt.ClientID(id)})
			for i := range a.Clients {
				add(tenant, &a.Clients[i])
			}
			continue
		}
		for cursor := ""; len(out) < limit; {
			a := d.shards.AskHere(&link.Query{Kind: link.QueryClients, Tenant: tenant, Cursor: cursor, Limit: operate.MostRows})
			for i := range a.Clients {
				add(tenant, &a.Clients[i])
			}
			if cursor = a.Next; cursor == "" {
				break
			}
		}
	}
	return out, nil
}

// protocols are VerneMQ's numbers of the versions of MQTT.
var protocols = map[string]int{"3.1": 3, "3.1.1": 4, "5": 5}

// rows are what session show has of a session: one row, or one for each of its
// subscriptions.
func (d *desk) rows(tenant string, c *link.ClientInfo, topics bool) []operate.Session {
	s := operate.Session{
		"node": d.name, "mountpoint": tenant, "client_id": c.ClientID, "user": c.Labels.Username,
		"is_online": c.Connected, "is_offline": !c.Connected, "clean_session": c.SessionExpiry == 0,
		"queue_size": c.QueueMessages, "waiting_acks": c.Inflight, "listener": c.Labels.Listener,
		"protocol": protocols[c.Labels.Protocol],
	}
	if c.Connected {
		s["statename"], s["num_sessions"], s["online_messages"], s["offline_messages"] = "online", 1, c.QueueMessages, 0
		s["session_started_at"], s["gateway"] = c.ConnectedAt, c.Labels.Gateway
		s["peer_host"] = c.Labels.Peer
		if host, port, err := net.SplitHostPort(c.Labels.Peer); err == nil {
			s["peer_host"], s["peer_port"] = host, port
		}
	} else {
		s["statename"], s["num_sessions"], s["online_messages"], s["offline_messages"] = "offline", 0, 0, c.QueueMessages
	}
	if !topics {
		return []operate.Session{s}
	}
	subs := c.Subscriptions
	if subs == nil {
		a := d.shards.AskHere(&link.Query{Kind: link.QueryClient, Tenant: tenant, ClientID: mqtt.ClientID(c.ClientID)})
		if len(a.Clients) > 0 {
			subs = a.Clients[0].Subscriptions
		}
	}
	var out []operate.Session
	for _, sub := range subs {
		row := maps.Clone(s)
		row["topic"], row["qos"], row["rap"], row["no_local"] = sub.Filter, int(sub.QoS), sub.RetainAsPublished, sub.NoLocal
		out = append(out, row)
	}
	return out
}
