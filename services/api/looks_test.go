// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/tenancy"
)

// asked are the questions of that kind that brokers were asked, and forgets all.
func (d *fakeData) asked(kind link.QueryKind) (out []link.Query) {
	for _, q := range d.queries {
		if q.Kind == kind {
			out = append(out, q)
		}
	}
	d.queries = nil
	return out
}

func TestClientSubscriptions(t *testing.T) {
	f := newFixture(t)
	key := f.signUp("acme")
	const path = "/v1/tenants/acme/clients/c1/subscriptions"
	f.data.answer.Clients = []link.ClientInfo{{ClientID: "c1", Subscriptions: []mqtt.Subscription{
		{Filter: "c"}, {Filter: "a", QoS: 2, NoLocal: true, RetainAsPublished: true, RetainHandling: 1, ID: 7}, {Filter: "b/#"},
	}}}
	v := f.want(f.do("GET", path, key, ""), 200, "")
	first := map[string]any{"filter": "a", "qos": 2.0, "no_local": true, "retain_as_published": true, "retain_handling": 1.0, "subscription_id": 7.0}
	if d := cmp.Diff(first, v["items"].([]any)[0]); d != "" || len(v["items"].([]any)) != 3 || v["next"] != nil {
		t.Errorf("%s in %v", d, v)
	}
	var got []string
	for cursor := ""; ; {
		v := f.want(f.do("GET", path+"?limit=1"+cursor, key, ""), 200, "")
		got = append(got, v["items"].([]any)[0].(map[string]any)["filter"].(string))
		if v["next"] == nil {
			break
		}
		cursor = "&cursor=" + v["next"].(string)
	}
	if fmt.Sprint(got) != "[a b/# c]" {
		t.Errorf("the pages have %v", got)
	}
	f.want(f.do("GET", path+"?cursor=x", key, ""), 400, "cursor_invalid")
	f.want(f.do("GET", path+"?limit=0", key, ""), 400, "request_invalid")
	f.data.answer = link.Answer{}
	f.want(f.do("GET", path, key, ""), 404, "client_not_found")
}

func TestClientQueue(t *testing.T) {
	w := newWorld(t)
	const path = "/v1/tenants/acme/clients/c1/queue"
	w.data.answer = link.Answer{Found: true, Next: `{"messages":3,"bytes":300,"inflight":1,"first":[
		{"topic":"a","qos":1,"size":2,"payload":"aGk=","expire_at":1000},{"topic":"b","qos":2,"retain":true,"size":1,"group":"$share/g/b","payload":"/w=="}]}`}
	v := w.want(w.do("GET", path, w.owner, ""), 200, "")
	want := map[string]any{"messages": 3.0, "bytes": 300.0, "inflight": 1.0, "items": []any{
		map[string]any{"topic": "a", "qos": 1.0, "retain": false, "size": 2.0, "expires_at": "1970-01-01T00:00:01Z"},
		map[string]any{"topic": "b", "qos": 2.0, "retain": true, "size": 1.0, "expires_at": nil, "shared_by": "$share/g/b"},
	}}
	if d := cmp.Diff(want, v); d != "" {
		t.Error(d)
	}
	v = w.want(w.do("GET", path+"?payloads=true&limit=2", w.owner, ""), 200, "")
	first, second := v["items"].([]any)[0].(map[string]any), v["items"].([]any)[1].(map[string]any)
	if first["payload"] != "hi" || first["payload_base64"] != "aGk=" || second["payload"] != nil || second["payload_base64"] != "/w==" {
		t.Errorf("got %v", v)
	}
	if d := cmp.Diff([]link.Query{
		{Kind: link.QueryQueue, Tenant: "acme", ClientID: "c1", Limit: 20},
		{Kind: link.QueryQueue, Tenant: "acme", ClientID: "c1", Limit: 2, Purge: true},
	}, w.data.asked(link.QueryQueue)); d != "" {
		t.Error(d)
	}
	// Who sees clients and no messages sees no payloads.
	_, viewer := w.newKey(tenancy.Access{Role: tenancy.RoleViewer})
	w.want(w.do("GET", path, viewer, ""), 200, "")
	w.want(w.do("GET", path+"?payloads=true", viewer, ""), 403, "permission_missing")
	if q := w.data.asked(link.QueryQueue); len(q) != 1 {
		t.Errorf("the brokers were asked %+v", q)
	}
	w.want(w.do("GET", path+"?limit=101", w.owner, ""), 400, "request_invalid")
	// The API's own channels are not there.
	w.data.answer.Clients = []link.ClientInfo{{ClientID: "$api-x-1", Labels: link.Labels{Listener: link.ListenerAPI}}}
	w.want(w.do("GET", "/v1/tenants/acme/clients/$api-x-1/queue", w.owner, ""), 404, "client_not_found")
	w.data.answer = link.Answer{}
	w.want(w.do("GET", path, w.owner, ""), 404, "client_not_found")
	w.data.answer = link.Answer{Found: true, Next: "nonsense"}
	w.want(w.do("GET", path, w.owner, ""), 500, "internal")
}

func TestMatchTopic(t *testing.T) {
	f := newFixture(t)
	key := f.signUp("acme")
	const path = "/v1/tenants/acme/topics:match"
	f.data.answer.Clients = []link.ClientInfo{
		{ClientID: "$api-x-1", Labels: link.Labels{Listener: link.ListenerAPI}},
		{ClientID: "c1", Connected: true, Subscriptions: []mqtt.Subscription{{Filter: "a/#", QoS: 1}, {Filter: "$share/g/a/+"}}},
		{ClientID: "c2", Subscriptions: []mqtt.Subscription{{Filter: "$share/g/a/+"}}},
	}
	f.data.answer.Next = "c2"
	f.data.answer.Retained = []link.RetainedInfo{{StoredAt: 2000, Message: mqtt.Message{Topic: []byte("a/b"), Payload: []byte("secret"), QoS: 1, HasExpiry: true, Expiry: 9}}}
	v := f.want(f.do("GET", path+"?topic=a/b&limit=3", key, ""), 200, "")
	sub := func(filter string, qos float64) map[string]any {
		return map[string]any{"filter": filter, "qos": qos, "no_local": false, "retain_as_published": false, "retain_handling": 0.0}
	}
	next := v["next"]
	want := map[string]any{
		"next": next,
		"items": []any{
			map[string]any{"client_id": "c1", "connected": true, "subscriptions": []any{sub("a/#", 1), sub("$share/g/a/+", 0)}},
			map[string]any{"client_id": "c2", "connected": false, "subscriptions": []any{sub("$share/g/a/+", 0)}},
		},
		"shared_groups": []any{map[string]any{"name": "g", "filter": "a/+", "members": 2.0, "connected": 1.0}},
		"retained":      map[string]any{"qos": 1.0, "size": 6.0, "stored_at": "1970-01-01T00:00:02Z", "expires_in": 9.0},
	}
	if d := cmp.Diff(want, v); d != "" {
		t.Error(d)
	}
	v = f.want(f.do("GET", path+"?topic=a/b&cursor="+fmt.Sprint(next), key, ""), 200, "")
	if v["retained"] != nil {
		t.Errorf("a later page has %v", v["retained"])
	}
	if d := cmp.Diff([]link.Query{
		{Kind: link.QueryMatch, Tenant: "acme", Filter: "a/b", Limit: 3},
		{Kind: link.QueryMatch, Tenant: "acme", Filter: "a/b", Limit: 100, Cursor: "c2"},
	}, f.data.asked(link.QueryMatch)); d != "" {
		t.Error(d)
	}
	f.want(f.do("GET", path, key, ""), 400, "request_invalid")
	f.want(f.do("GET", path+"?topic=%2B", key, ""), 400, "topic_invalid")
	f.want(f.do("GET", path+"?topic=a/%23", key, ""), 400, "topic_invalid")
	f.want(f.do("GET", path+"?topic=a&cursor=x", key, ""), 400, "cursor_invalid")
	f.data.answer = link.Answer{Found: true}
	v = f.want(f.do("GET", path+"?topic=a", key, ""), 200, "")
	if v["retained"] != nil || len(v["items"].([]any)) != 0 || v["next"] != nil {
		t.Errorf("nobody has subscribed, and got %v", v)
	}
}
