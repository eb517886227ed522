// SPDX-License-Identifier: Apache-2.0

package operate

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/manormq/manor/infra/errs"
)

// scene is a cluster that is as it was written down, and notes what was done to it.
type scene struct {
	members    []Member
	nodes      map[string]Node
	partitions []Partition
	did        []string
	asked      SessionQuery
}

func (s *scene) Self() string                                    { return "b1" }
func (s *scene) Members() []Member                               { return s.members }
func (s *scene) Nodes(context.Context) map[string]Node           { return s.nodes }
func (s *scene) Partitions(context.Context) ([]Partition, error) { return s.partitions, nil }
func (s *scene) Copies(context.Context, int) ([]Copy, error)     { return []Copy{{Node: "b2"}}, nil }

func (s *scene) Drain(_ context.Context, node string, undo bool) error {
	s.did = append(s.did, "drain "+node+map[bool]string{true: " undo"}[undo])
	return nil
}

func (s *scene) Leave(_ context.Context, node string, force bool) ([]int, error) {
	s.did = append(s.did, "leave "+node+map[bool]string{true: " force"}[force])
	return []int{1, 2, 3, 7}, nil
}

func (s *scene) Token(_ context.Context, ttl time.Duration, node string) (string, error) {
	return fmt.Sprint("token for ", node, " for ", ttl), nil
}

func (s *scene) Abandon(context.Context, int) (Copy, error) {
	s.did = append(s.did, "abandon")
	return Copy{Node: "b1", Kind: "whole", Epoch: 4, N: 9}, nil
}

func (s *scene) SetClass(_ context.Context, ids []int, label string, replicas int) error {
	s.did = append(s.did, fmt.Sprint("label ", ids, label, replicas))
	return nil
}

func (s *scene) Placements() []Placement {
	return []Placement{
		{Tenant: "acme", Partitions: []int{60, 61, 62}, Revision: 2, Placed: true},
		{Tenant: "back", Revision: 3, Placed: true},
		{Tenant: "roams", Partitions: []int{4}, Revision: 5, Placed: true, To: []int{5, 6}, Stage: "leaving"},
		{Tenant: "small", Partitions: []int{7}, Revision: 1},
		{Tenant: "was", Revision: 3, Purged: true},
	}
}

func (s *scene) Place(_ context.Context, tenant string, to Place) (Placement, error) {
	s.did = append(s.did, fmt.Sprint("place ", tenant, to.Partitions, to.Label))
	if to.Grow > 0 {
		s.did[len(s.did)-1] = fmt.Sprint("grow ", tenant, " ", to.Grow)
	}
	return Placement{Tenant: tenant, Partitions: to.Partitions, Revision: 2, Placed: true}, nil
}

func (s *scene) Progress(_ context.Context, tenant string) Progress {
	return Progress{Stage: "leaving", Sessions: 7, Retained: 3, Waits: "b2 to answer"}
}

func (s *scene) Settings() []Setting {
	return []Setting{{Name: "moves", Value: 8, Set: true, Least: 1, Most: 64, Doc: "how many"}}
}

func (s *scene) Set(_ context.Context, name, value string) error {
	s.did = append(s.did, "set "+name+" "+value)
	return nil
}

func (s *scene) Sessions(_ context.Context, q SessionQuery) ([]Session, error) {
	s.asked = q
	if q.Filters["client_id"] == "bad" {
		return nil, errs.New(errs.Unavailable, "not now")
	}
	return []Session{{"client_id": "c", "is_online": true, "user": "u", "topic": "a/b", "qos": 1}}, nil
}

func newScene() *scene {
	return &scene{
		members: []Member{
			{Name: "b1", State: "alive", Version: "v1", Owned: 2, Since: time.Unix(0, 0)},
			{Name: "b2", State: "down", Version: "v2", Owned: 1, Since: time.Unix(0, 0)},
			{Name: "b3", State: "alive", Version: "v1", Draining: true, Since: time.Unix(0, 0)},
		},
		nodes: map[string]Node{"b1": {NumOnline: 5, Gateways: []Gateway{{Name: "gateway-1", Links: 2}}}},
		partitions: []Partition{
			{ID: 0, Owner: "b1", InSync: []string{"b1", "b3"}, Wanted: []string{"b1", "b3"}, Replicas: 2, State: InSync},
			{ID: 1, Owner: "b2", InSync: []string{"b2"}, Wanted: []string{"b1", "b3"}, Replicas: 2, State: Unserved},
		},
	}
}

// send is a request; from is the address of who sends it.
func send(c Cluster, method, path, from string, header ...string) (int, string) {
	r := httptest.NewRequest(method, "http://127.0.0.1:8888"+Prefix+"/"+path, nil)
	r.RemoteAddr = from
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
		if header[i] == "Host" {
			r.Host = header[i+1]
		}
	}
	w := httptest.NewRecorder()
	Handler(c).ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

const here = "127.0.0.1:999"

// Changes are POSTs of this machine, by who knows what it does: a page of another site,
// also one whose name leads here, changes nothing.
func TestHandler_WhoMayChange(t *testing.T) {
	for _, c := range []struct {
		method, path, from string
		header             []string
		code               int
	}{
		{http.MethodPost, "cluster/drain?node=b1&--undo", here, nil, 200},
		{http.MethodPost, "cluster/drain?--node=b1&undo", "[::1]:999", []string{"Host", "localhost:8888"}, 200},
		{http.MethodGet, "cluster/drain?node=b1", here, nil, 405},
		{http.MethodPost, "cluster/drain?node=b1", "10.0.0.7:999", nil, 403},
		{http.MethodPost, "cluster/drain?node=b1", here, []string{"Host", "evil.example:8888"}, 403},
		{http.MethodPost, "cluster/drain?node=b1", here, []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{http.MethodPost, "cluster/drain?node=b1", here, []string{"Origin", "https://evil.example"}, 403},
		{http.MethodPost, "cluster/show", here, nil, 405},
		{http.MethodGet, "cluster/show", "10.0.0.7:999", nil, 200},
		{http.MethodHead, "cluster", here, nil, 200},
	} {
		s := newScene()
		code, body := send(s, c.method, c.path, c.from, c.header...)
		if code != c.code {
			t.Errorf("%s %s from %s %v: %d %s, expected %d", c.method, c.path, c.from, c.header, code, body, c.code)
		}
		if changed := len(s.did) > 0; changed != (code == 200 && c.method == http.MethodPost) {
			t.Errorf("%s %s from %s %v did %q", c.method, c.path, c.from, c.header, s.did)
		}
	}
}

// What the commands say, and what they refuse.

// A broker of which nothing is heard hands nothing over, whether or not it is long enough to call it down.
func TestHandler_DrainsWhoIsThere(t *testing.T) {
	for _, state := range []string{"suspected", "down"} {
		s := newScene()
		s.members[1].State = state
		if code, body := send(s, http.MethodPost, "cluster/drain?node=b2", here); code != http.StatusConflict ||
			!strings.Contains(body, "b2 is "+state) || !strings.Contains(body, "cluster leave --node b2 --force") || len(s.did) > 0 {
			t.Errorf("%s: %d, did %q: %s", state, code, s.did, body)
		}
	}
}

func TestHandler_Commands(t *testing.T) {
	for _, c := range []struct {
		path string
		code int
		want string // in the answer
		did  string
	}{
		{"cluster/show", 200, `"Node":"b2","Running":false,"State":"down"`, ""},
		{"cluster/show", 200, `"Node":"b3","Running":true,"State":"drained"`, ""},
		{"cluster", 200, `"type":"table"`, ""},
		{"cluster/join", 200, `nats.urls`, ""},
		{"cluster/gateways", 200, `"Gateway":"gateway-1","Brokers":"b1","Of":1,"Links":2`, ""},
		{"POST cluster/token/create", 200, `token for  for 1h0m0s`, ""},
		{"POST cluster/token/create?--ttl=10m&node=b4", 200, `token for b4 for 10m0s`, ""},
		{"POST cluster/token/create?ttl=soon", 400, `expected a ttl such as 1h`, ""},
		{"cluster/rebalance", 200, `1 of 2 partitions are where they should be; 1 are to be moved`, ""},
		{"cluster/upgrade-check", 200, `not all brokers are alive (b2)`, ""},
		{"POST cluster/drain?node=b1", 409, `no other broker that could take`, ""},
		{"POST cluster/drain?node=b2", 409, `cluster leave --node b2 --force`, ""},
		{"POST cluster/leave?node=b1", 409, `drain it first`, ""},
		{"POST cluster/leave?node=b3", 200, `b3 is no member`, "leave b3"},
		{"POST cluster/leave?node=b3&--force", 409, `b3 is alive`, ""},
		{"POST cluster/leave?node=b2", 409, `--force`, ""},
		{"POST cluster/leave?node=b2&--force=true", 200, `4 partitions have no other replica in sync and are not served: 1-3, 7`, "leave b2 force"},
		{"POST cluster/leave?node=b2&--force=false", 409, `--force`, ""},
		{"POST cluster/leave?node=b9", 404, `expected one of: b1, b2, b3`, ""},
		{"POST cluster/leave?nod=b2", 400, `expected the arguments node, force`, ""},
		{"node/status", 200, `"Figure":"num_online","b1":5`, ""},
		{"node/status", 200, `b2 is down and does not answer`, ""},
		{"node/status?node=b2", 503, `b2 is down`, ""},
		{"partition/show", 200, `"Partition":1,"State":"unserved","Owner":"b2"`, ""},
		{"partition/show?state=in_sync", 200, `"table":[{"Partition":0`, ""},
		{"partition/show?state=x", 400, `in_sync, degraded`, ""},
		{"partition/show?partition=1", 200, `"Copy":"does not answer"`, ""},
		{"partition/show?partition=2", 404, `0 to 1`, ""},
		{"partition/show?partition=x", 400, `expected the number`, ""},
		{"POST partition/abandon?partition=0&yes", 409, `served by b1`, ""},
		{"POST partition/abandon?partition=1", 400, `only b2 may have`, ""},
		{"POST partition/abandon?partition=1&--yes", 200, `goes on at b1 from the copy that b1 has (whole, up to record 9 of epoch 4)`, "abandon"},
		{"POST partition/label?partitions=0-1&label=acme", 200, `the partitions 0-1 are for brokers that accept the label acme`, "label [0 1]acme0"},
		{"POST partition/label?partitions=1,0&label=shared&--replicas=3", 200, `cluster rebalance`, "label [0 1]shared3"},
		{"POST partition/label?partitions=1-0&label=acme", 400, `expected partitions such as 4 or 0-3,7`, ""},
		{"POST partition/label?partitions=0-70000&label=acme", 400, `expected partitions such as 4 or 0-3,7`, ""},
		{"POST partition/label?partitions=1", 400, `expected a label`, ""},
		{"POST partition/label?partitions=1&label=acme&replicas=0", 400, `--replicas of 1 or more`, ""},
		{"tenant/show", 200, `"Tenant":"acme","Partitions":"60-62","By":"operator","Revision":2`, ""},
		{"tenant/show?tenant=back", 200, `"Tenant":"back","Partitions":"as its plan has it","By":"plan"`, ""},
		{"tenant/show?tenant=small", 200, `"Partitions":"7","By":"plan","Revision":1`, ""},
		{"tenant/show", 200, `"Tenant":"small","Partitions":"7","By":"plan","Revision":1,"Moves":""}]},{"type":"text","text":"purged tenants of which a record stays, whose revision only grows: 1`, ""},
		{"tenant/show?purged=true", 200, `"Tenant":"was","Partitions":"none, or as its plan has it if it was made again","By":"purge","Revision":3`, ""},
		{"tenant/show?tenant=was", 200, `"By":"purge"`, ""},
		{"tenant/show?tenant=none", 200, `none has no record`, ""},
		{"POST tenant/place?tenant=new&--partitions=60", 200, `1 other tenants have some of these partitions: acme`, "place new[60]"},
		{"POST tenant/place?tenant=new&--dedicated=acme", 200, `"Tenant":"new"`, "place new[]acme"},
		{"POST tenant/place?tenant=new&--shared", 200, `as its plan has it`, "place new[]"},
		{"POST tenant/place?tenant=new&--grow=8", 200, `"Tenant":"new"`, "grow new 8"},
		{"POST tenant/place?tenant=new&--grow=0", 400, `expected --grow of 1 or more`, ""},
		{"GET tenant/show?tenant=roams", 200, `leaving for 5-6`, ""},
		{"GET tenant/show?tenant=roams", 200, `7 sessions and 3 retained messages are left; it waits for b2 to answer`, ""},
		{"POST tenant/place?tenant=new", 400, `expected one of --partitions LIST`, ""},
		{"POST tenant/place?tenant=new&shared&dedicated=x", 400, `expected one of --partitions LIST`, ""},
		{"POST tenant/place?shared", 400, `expected the id of a tenant`, ""},
		{"cluster/config/show", 200, `"Name":"moves","Value":8,"By":"operator"`, ""},
		{"POST cluster/config/set?name=moves&value=2", 200, `moves is 2 on all brokers`, "set moves 2"},
		{"nonsense", 400, `expected one of: cluster, cluster/config/set`, ""},
		{"cluster/show?x=1", 400, `expected no arguments`, ""},
	} {
		s := newScene()
		method, path, ok := strings.Cut(c.path, " ")
		if !ok {
			method, path = http.MethodGet, c.path
		}
		code, body := send(s, method, path, here)
		all, err := Read([]byte(body))
		if err != nil {
			t.Fatal(err)
		}
		plain, _ := json.Marshal(all)
		if code != c.code || !strings.Contains(string(plain), c.want) || strings.Join(s.did, ",") != c.did {
			t.Errorf("%s: %d, did %q, %s; expected %d with %q", c.path, code, s.did, plain, c.code, c.want)
		}
		if err := Err(code, all); (err != nil) != (code >= 400) || err != nil && !strings.Contains(err.Error(), strings.Trim(c.want, `"`)) {
			t.Errorf("%s: the error is %v", c.path, err)
		}
	}
}

// A bare field is a column, one with a value a filter, which shows itself only where no
// column is asked for: the columns of VerneMQ.
func TestHandler_SessionShow(t *testing.T) {
	for path, want := range map[string]struct {
		columns string
		query   SessionQuery
	}{
		"session/show":                                 {"client_id is_online mountpoint peer_host peer_port user", SessionQuery{Limit: 100}},
		"sessions?--limit=7":                           {"client_id is_online mountpoint peer_host peer_port user", SessionQuery{Limit: 7}},
		"session/show?--user&--client_id":              {"client_id user", SessionQuery{Limit: 100}},
		"session/show?--user=~^u":                      {"user", SessionQuery{Limit: 100, Filters: map[string]string{"user": "~^u"}}},
		"session/show?--user&--is_online=true":         {"user", SessionQuery{Limit: 100, Filters: map[string]string{"is_online": "true"}}},
		"session/show?--qos&--client_id=c&--client_id": {"qos", SessionQuery{Limit: 100, Topics: true, Filters: map[string]string{"client_id": "c"}}},
		"session/show?--topic=a/b":                     {"topic", SessionQuery{Limit: 100, Topics: true, Filters: map[string]string{"topic": "a/b"}}},
	} {
		s := newScene()
		code, body := send(s, http.MethodGet, path, here)
		all, err := Read([]byte(body))
		if err != nil || code != 200 || len(all[0].Table) != 1 {
			t.Errorf("%s: %d %s", path, code, body)
			continue
		}
		var columns []string
		for _, c := range all[0].Table[0] {
			columns = append(columns, c.Name)
		}
		if want.query.Filters == nil {
			want.query.Filters = map[string]string{}
		}
		if diff := cmp.Diff(want.query, s.asked); diff != "" || strings.Join(columns, " ") != want.columns {
			t.Errorf("%s: columns %v, expected %s; question (-want +got):\n%s", path, columns, want.columns, diff)
		}
	}
	for path, code := range map[string]int{
		"session/show?--limit=0": 400, "session/show?--limit=1001": 400, "session/show?--limit=x": 400,
		"session/show?--password": 400, "session/show?--client_id=bad": 503,
	} {
		if got, body := send(newScene(), http.MethodGet, path, here); got != code {
			t.Errorf("%s: %d %s", path, got, body)
		}
	}
}

// A row keeps the order of its columns, there and back.
func TestRow_Order(t *testing.T) {
	const text = `{"z":1,"a":"x","m":null,"b":true}`
	var r Row
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(r)
	if err != nil || string(out) != text {
		t.Errorf("%s, %v", out, err)
	}
	for _, bad := range []string{`[]`, `1`, `{"a":`} {
		if err := r.UnmarshalJSON([]byte(bad)); err == nil {
			t.Errorf("%s is a row", bad)
		}
	}
	if b, err := json.Marshal(Table(nil)); err != nil || string(b) != `{"type":"table","table":[]}` {
		t.Errorf("an empty table is %s, %v", b, err)
	}
}

// The cluster is complete when every member answers with listeners that run.
func TestComplete(t *testing.T) {
	s := newScene()
	if err := Complete(t.Context(), s); err == nil || !strings.Contains(err.Error(), "b2 does not answer; b3 does not answer") {
		t.Errorf("%v", err)
	}
	s.members = s.members[:1]
	if err := Complete(t.Context(), s); err != nil {
		t.Error(err)
	}
	s.nodes["b1"] = Node{Listeners: []Listener{{Status: "stopped", IP: "127.0.0.1", Port: "1"}}}
	if err := Complete(t.Context(), s); err == nil || !strings.Contains(err.Error(), "127.0.0.1:1 is stopped") {
		t.Errorf("%v", err)
	}
}

// /status.json is VerneMQ's: a list of one object with VerneMQ's names.
func TestStatus_VerneMQ(t *testing.T) {
	text, err := json.Marshal(Status(t.Context(), newScene()))
	if err != nil {
		t.Fatal(err)
	}
	var list []map[string]map[string]any
	if err := json.Unmarshal(text, &list); err != nil || len(list) != 1 || len(list[0]) != 1 {
		t.Fatalf("%s, %v", text, err)
	}
	for name := range strings.FieldsSeq("num_online num_offline msg_in msg_out queue_in queue_out queue_drop queue_unhandled num_subscriptions num_retained matches_local matches_remote version mystatus listeners") {
		if _, ok := list[0]["b1"][name]; !ok {
			t.Errorf("%s is missing", name)
		}
	}
}
