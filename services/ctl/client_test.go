// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/api"
	"github.com/manormq/manor/services/api/dataplane"
	"github.com/manormq/manor/tenancy"
)

// few are brokers with three clients, of which lists have one a page, and a retained message.
type few struct {
	published []mqtt.Message
	kicked    []string
}

func (f *few) Publish(_ context.Context, _ *tenancy.Tenant, m mqtt.Message) (dataplane.Ack, error) {
	f.published = append(f.published, m)
	return dataplane.Ack{Reason: mqtt.NoMatchingSubscribers}, nil
}

func (f *few) Query(_ context.Context, q link.Query) (*link.Answer, error) {
	if q.ClientID == "nobody" {
		return &link.Answer{}, nil
	}
	a := &link.Answer{Found: true}
	switch q.Kind {
	case link.QueryClients, link.QueryMatch:
		n := 1
		if q.Cursor != "" {
			n = int(q.Cursor[1]-'0') + 1
		}
		c := link.ClientInfo{ClientID: fmt.Sprint("c", n), Connected: n != 2, Labels: link.Labels{Username: "u", Protocol: "5", Peer: "192.0.2.1:5"}}
		if q.Kind == link.QueryMatch {
			c.Subscriptions = []mqtt.Subscription{{Filter: "a/#", QoS: 1}}
		}
		a.Clients = []link.ClientInfo{c}
		if n < 3 {
			a.Next = c.ClientID
		}
	case link.QueryClient:
		a.Clients = []link.ClientInfo{{
			ClientID: string(q.ClientID), Connected: true, ConnectedAt: 1000, SessionExpiry: 60, QueueMessages: 2,
			Subscriptions: []mqtt.Subscription{{Filter: "a/#", QoS: 1, NoLocal: true, ID: 7}},
		}}
	case link.QueryKick:
		f.kicked = append(f.kicked, fmt.Sprint(q.ClientID, q.Purge))
	case link.QueryQueue:
		a.Next = `{"messages":9,"bytes":99,"inflight":1,"first":[{"topic":"a/b","qos":1,"size":2,"payload":"aGk=","expire_at":1000}]}`
	case link.QueryRetained:
		a.Retained = []link.RetainedInfo{{StoredAt: 1000, Message: mqtt.Message{Topic: []byte("a/b"), Payload: []byte("kept")}}}
	default:
		a.Usage.Connections = 3
	}
	return a, nil
}

func TestClientCommands(t *testing.T) {
	data := &few{}
	organizationOf(t, func(c *api.Config) { c.Data = data })
	shown(t, "c2      no         u     5         192.0.2.1:5", "client", "list", "acme")
	if v := good(t, "client", "list", "acme"); len(v["items"].([]any)) != 3 {
		t.Errorf("got %v", v)
	}
	if out, code := run("client", "list", "acme", "--limit", "2"); code != 0 || !strings.Contains(out, "There are more: these are the first 2") {
		t.Errorf("%d %s", code, out)
	}
	bad(t, 2, "expected a number above 0", "client", "list", "acme", "--limit", "0")
	bad(t, 2, "accepts 1 arg(s)", "client", "list")
	bad(t, 1, "no tenant", "client", "list", "nothing")
	shown(t, "c1 is connected since 1970-01-01 00:00", "client", "show", "acme", "c1")
	shown(t, "outlives the connection: 60 s; 2 messages wait", "client", "show", "acme", "c1")
	bad(t, 1, "there is no client", "client", "show", "acme", "nobody")
	shown(t, "a/#     1    yes", "client", "subscriptions", "acme", "c1")
	shown(t, "a/b  QoS 1, 2 bytes, until 1970-01-01 00:00:01", "client", "queue", "acme", "c1")
	shown(t, `: "hi"`, "client", "queue", "acme", "c1", "--payloads")
	if v := good(t, "client", "queue", "acme", "c1"); v["messages"] != 9.0 {
		t.Errorf("got %v", v)
	}
	bad(t, 2, "from 0 to 100", "client", "queue", "acme", "c1", "--limit", "101")
	shown(t, "AT", "client", "timeline", "acme", "c1", "--since", "24h")
	bad(t, 2, "event_kind_unknown", "client", "timeline", "acme", "c1", "--kind", "born")
	bad(t, 2, "above 0", "event", "list", "acme", "--limit", "0")
	shown(t, "c1 is disconnected", "client", "disconnect", "acme", "c1")
	shown(t, "its session is forgotten", "client", "disconnect", "acme", "c1", "--purge")
	if got := fmt.Sprint(data.kicked); got != "[c1false c1true]" {
		t.Errorf("disconnected %s", got)
	}
	shown(t, "c2 by a/# at QoS 1, not connected", "topic", "match", "acme", "a/b")
	shown(t, "a message of 4 bytes is retained since", "topic", "match", "acme", "a/b")
	if v := good(t, "topic", "match", "acme", "a/b"); len(v["items"].([]any)) != 3 || v["retained"] == nil {
		t.Errorf("got %v", v)
	}
	bad(t, 2, "topic_invalid", "topic", "match", "acme", "a/#")
	shown(t, "connections", "usage", "show", "acme")
	shown(t, "connections  3", "usage", "show", "acme", "connections")
}

func TestMessageCommands(t *testing.T) {
	data := &few{}
	organizationOf(t, func(c *api.Config) { c.Data = data })
	shown(t, "published: no matching subscribers", "publish", "acme", "a/b", "hello")
	file := filepath.Join(t.TempDir(), "payload")
	if err := os.WriteFile(file, []byte{0xff, 0}, 0o600); err != nil {
		t.Fatal(err)
	}
	shown(t, "published", "publish", "acme", "a/b", "--file", file, "--qos", "2", "--retain", "--expiry", "60")
	shown(t, "nothing is retained for a/b", "retained", "delete", "acme", "a/b")
	if len(data.published) != 3 {
		t.Fatalf("%d messages were published", len(data.published))
	}
	first, second, third := data.published[0], data.published[1], data.published[2]
	if string(first.Payload) != "hello" || first.QoS != 1 || first.Retain || first.HasExpiry {
		t.Errorf("published %+v", first)
	}
	if string(second.Payload) != "\xff\x00" || second.QoS != 2 || !second.Retain || second.Expiry != 60 {
		t.Errorf("published %+v", second)
	}
	if len(third.Payload) != 0 || !third.Retain {
		t.Errorf("published %+v", third)
	}
	bad(t, 2, "found both", "publish", "acme", "a", "x", "--file", file)
	bad(t, 2, "no such file", "publish", "acme", "a", "--file", file+"x")
	bad(t, 2, "topic_invalid", "publish", "acme", "a/#", "x")
	bad(t, 2, "expected --qos of 0, 1 or 2, found 3", "publish", "acme", "a", "x", "--qos", "3")
	shown(t, `a/b    0    1970-01-01 00:00  "kept"`, "retained", "list", "acme", "--filter", "a/+")
	bad(t, 2, "filter_invalid", "retained", "list", "acme", "--filter", "a#")
}

func TestQuotaCommands(t *testing.T) {
	organizationOf(t)
	shown(t, "connections   5", "quota", "set", "acme", "connections=5", "publish_rate=100")
	shown(t, "override", "quota", "show", "acme", "connections")
	if v := good(t, "quota", "set", "acme", "delivery_rate=none"); len(v["items"].([]any)) != 1 {
		t.Errorf("what was changed is %v", v)
	}
	overrides := map[string]any{}
	for _, q := range good(t, "quota", "show", "acme")["items"].([]any) {
		if v := q.(map[string]any)["override"]; v != nil {
			overrides[q.(map[string]any)["name"].(string)] = v
		}
	}
	if fmt.Sprint(overrides) != "map[connections:5 delivery_rate:-1 publish_rate:100]" {
		t.Errorf("the others have not stayed: %v", overrides)
	}
	shown(t, "Nothing was changed", "quota", "set", "acme", "connections=5")
	shown(t, "connections  250000", "quota", "unset", "acme", "connections")
	bad(t, 2, "is not overridden", "quota", "unset", "acme", "connections")
	bad(t, 2, "expected NAME=LIMIT", "quota", "set", "acme", "connections")
	bad(t, 2, "quota_unknown", "quota", "set", "acme", "conections=5")
	bad(t, 2, "did you mean connections?", "quota", "show", "acme", "conections")
	bad(t, 2, "requires at least 2", "quota", "set", "acme")
	bad(t, 1, "no tenant", "quota", "set", "nobody", "connections=5")
}
