// SPDX-License-Identifier: Apache-2.0

package conform

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/infra/mqtt"
)

// openAPI is what the attacks need of docs/openapi.json.
type openAPI struct {
	Paths map[string]map[string]struct {
		OperationID string                `json:"operationId"`
		Security    []map[string][]string `json:"security"`
	}
}

// call is one operation.
type call struct{ id, method, path string }

func readOpenAPI(t *testing.T) (d openAPI) {
	t.Helper()
	text, err := os.ReadFile("../../docs/openapi.json")
	if err == nil {
		err = json.Unmarshal(text, &d)
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// calls are the operations that need a key, by their paths.
func (d openAPI) calls() (all []call) {
	for _, path := range slices.Sorted(maps.Keys(d.Paths)) {
		for _, method := range slices.Sorted(maps.Keys(d.Paths[path])) {
			if op := d.Paths[path][method]; len(op.Security) > 0 {
				all = append(all, call{op.OperationID, strings.ToUpper(method), path})
			}
		}
	}
	return all
}

// parameters are the names in a path.
func parameters(path string) (names []string) {
	for _, m := range regexp.MustCompile(`\{([a-z_]+)\}`).FindAllStringSubmatch(path, -1) {
		names = append(names, m[1])
	}
	return names
}

// answer is what the API has said.
type answer struct {
	asked  string
	status int
	header http.Header
	body   []byte
}

// want holds that the status is one of some.
func (a answer) want(t testing.TB, status ...int) answer {
	t.Helper()
	if !slices.Contains(status, a.status) {
		t.Fatalf("%s: %d, expected %v: %.500s", a.asked, a.status, status, a.body)
	}
	return a
}

// refused holds that the status is one of some, that the answer is a problem, and
// that it has nothing of the victim's.
func (a answer) refused(t *testing.T, status ...int) {
	t.Helper()
	if !slices.Contains(status, a.status) || !strings.HasPrefix(a.header.Get("Content-Type"), "application/problem+json") {
		t.Errorf("%s: %d %s, expected a problem %v: %.500s", a.asked, a.status, a.header.Get("Content-Type"), status, a.body)
	}
	a.clean(t)
}

// clean holds that the answer has nothing that is the victim's own.
func (a answer) clean(t *testing.T) {
	t.Helper()
	if bytes.Contains(a.body, []byte(jewel)) || bytes.Contains([]byte(fmt.Sprint(a.header)), []byte(jewel)) {
		t.Errorf("%s: the answer has something of the victim's: %.500s", a.asked, a.body)
	}
}

func (a answer) object(t testing.TB) (v map[string]any) {
	t.Helper()
	if err := json.Unmarshal(a.body, &v); err != nil {
		t.Fatalf("%s: %v: %.500s", a.asked, err, a.body)
	}
	return v
}

// ask asks with the key of b; nil has none. body nil is none. Headers are pairs.
func (s *siege) ask(t testing.TB, b *besieged, method, path string, body any, headers ...string) answer {
	t.Helper()
	var text io.Reader
	if body != nil {
		j, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		text = bytes.NewReader(j)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, s.p.API+path, text)
	if err != nil {
		t.Fatal(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if b != nil {
		req.Header.Set("Authorization", "Bearer "+b.Key)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := noRedirects.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer func() { _ = resp.Body.Close() }()
	a := answer{asked: method + " " + path, status: resp.StatusCode, header: resp.Header}
	if a.body, err = io.ReadAll(resp.Body); err != nil {
		t.Fatalf("%s: %v", a.asked, err)
	}
	return a
}

var noRedirects = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// volatile are figures that change without anybody who changes them.
var volatile = regexp.MustCompile(`"(usage|used|headroom|last_used_at|last_used_from|keys_at|checked_at|next_check_at|problem)":("[^"]*"|null|[0-9]+),?`)

// victimState is everything that the API keeps of the victim and can be listed, by
// what is asked.
func (s *siege) victimState(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, c := range s.document.calls() {
		switch c.id {
		case "list-clients", "get-client", "list-audit", "export-audit", "verify-audit", "list-events", "follow-events", "get-client-timeline", "get-usage", "get-tenant-metrics", "get-policy-shadow", "list-retained", "get-client-queue", "list-client-subscriptions":
			continue // what the victim itself does shows there
		}
		if c.method == http.MethodGet {
			path := escape(c.path, s.victim.ids)
			if c.id == "match-topic" {
				path += "?topic=" + jewel
			}
			a := s.ask(t, s.victim, c.method, path, nil)
			a.want(t, http.StatusOK)
			all[a.asked] = string(volatile.ReplaceAll(a.body, nil))
			if list, err := x509.ParseRevocationList(a.body); err == nil { // signed anew for each who asks
				all[a.asked] = fmt.Sprint(list.Issuer, list.RevokedCertificateEntries)
			}
		}
	}
	return all
}

// byID asks for every operation on the victim with the attacker's key, and for
// what is the victim's below the attacker's own tenant and organization.
func (s *siege) byID(t *testing.T) {
	below := 0
	for _, c := range s.document.calls() {
		names := parameters(c.path)
		if len(names) == 0 {
			continue
		}
		var body any
		if c.method != http.MethodGet && c.method != http.MethodDelete {
			body = map[string]any{}
		}
		path := escape(c.path, s.victim.ids)
		s.ask(t, s.attacker, c.method, path, body).refused(t, http.StatusNotFound)
		s.ask(t, nil, c.method, path, body).refused(t, http.StatusUnauthorized)
		// What is made by its name is the attacker's own then.
		if len(names) < 2 || c.method == http.MethodPut || slices.Contains([]string{"get-client-timeline", "get-policy"}, c.id) {
			continue
		}
		below++
		a := s.ask(t, s.attacker, c.method, escape(escape(c.path, s.attacker.ids), s.victim.ids), body)
		if a.status != http.StatusNotFound && (a.status != http.StatusBadRequest || body == nil) {
			t.Errorf("%s: %d, expected 404: %.300s", a.asked, a.status, a.body)
		}
	}
	if below < 15 {
		t.Errorf("%d operations were tried below the attacker's own: the document has changed", below)
	}
	for _, body := range []map[string]any{{"name": "x", "role": "viewer", "tenants": []string{"victim"}}, {"name": "x", "role": "viewer", "tenants": []string{"attacker", "victim"}}} {
		s.ask(t, s.attacker, http.MethodPost, "/v1/organizations/"+s.attacker.organization+"/api-keys", body).refused(t, http.StatusBadRequest)
	}
	s.ask(t, s.attacker, http.MethodPost, "/v1/organizations/"+s.attacker.organization+"/tenants", map[string]any{"id": "victim"}).refused(t, http.StatusConflict)
	s.ask(t, s.attacker, http.MethodGet, "/v1/organizations/"+s.attacker.organization+"/audit?tenant=victim", nil).want(t, http.StatusOK).clean(t)
}

// byKey uses, changes and forges keys of the victim's organization.
func (s *siege) byKey(t *testing.T) {
	v, a := s.victim, s.attacker
	for _, organization := range []string{v.organization, a.organization} {
		for _, c := range []struct {
			method, path string
			body         any
		}{
			{http.MethodGet, "", nil},
			{http.MethodDelete, "", nil},
			{http.MethodPatch, "", map[string]any{"name": loot}},
			{http.MethodPost, ":rotate", map[string]any{}},
		} {
			s.ask(t, a, c.method, "/v1/organizations/"+organization+"/api-keys/"+v.ids["key"]+c.path, c.body).refused(t, http.StatusNotFound)
		}
		s.ask(t, a, http.MethodPatch, "/v1/organizations/"+organization+"/members/"+v.ids["member"], map[string]any{"role": "owner"}).refused(t, http.StatusNotFound)
	}
	s.ask(t, a, http.MethodGet, "/v1/organizations/"+a.organization+"/api-keys", nil).want(t, http.StatusOK).clean(t)
	path := "/v1/tenants/victim/credentials"
	// A key counts in Authorization only, and the attacker's opens nothing by a name.
	for name, header := range map[string][]string{
		"X-API-Key": {"X-API-Key", v.Key}, "a cookie": {"Cookie", "key=" + v.Key}, "Basic": {"Authorization", "Basic " + v.Key}, "no scheme": {"Authorization", v.Key},
		"an id": {"Authorization", "Bearer " + v.ids["key"]}, "two": {"Authorization", "Bearer " + a.Key + " " + v.Key}, "a part": {"Authorization", "Bearer " + v.Key[:len(v.Key)-1]},
		"more": {"Authorization", "Bearer " + v.Key + "x"}, "other letters": {"Authorization", "Bearer " + strings.ToUpper(v.Key)}, "a token": {"Authorization", "Bearer mt_" + v.Key[3:]},
		"halves": {"Authorization", "Bearer " + a.Key[:len(a.Key)/2] + v.Key[len(v.Key)/2:]}, "other halves": {"Authorization", "Bearer " + v.Key[:len(v.Key)/2] + a.Key[len(a.Key)/2:]},
	} {
		got := s.ask(t, nil, http.MethodGet, path, nil, header...)
		if got.status != http.StatusUnauthorized {
			t.Errorf("%s: %d", name, got.status)
		}
		got.clean(t)
	}
	for _, query := range []string{"?key=" + v.Key, "?access_token=" + v.Key, "?tenant=attacker"} {
		s.ask(t, a, http.MethodGet, path+query, nil).refused(t, http.StatusNotFound)
	}
	for _, header := range []string{"X-Original-URL", "X-Rewrite-URL", "X-HTTP-Method-Override", "X-Tenant", "X-Organization"} {
		s.ask(t, a, http.MethodGet, path, nil, header, path).refused(t, http.StatusNotFound)
	}
	// The answer that is kept for an Idempotency-Key is its caller's.
	body := map[string]any{"name": jewel + "-kept", "role": "viewer"}
	kept := s.ask(t, v, http.MethodPost, "/v1/organizations/"+v.organization+"/api-keys", body, "Idempotency-Key", "the-same").want(t, http.StatusCreated)
	s.ask(t, a, http.MethodPost, "/v1/organizations/"+v.organization+"/api-keys", body, "Idempotency-Key", "the-same").refused(t, http.StatusNotFound)
	s.ask(t, nil, http.MethodPost, "/v1/organizations/"+v.organization+"/api-keys", body, "Idempotency-Key", "the-same").refused(t, http.StatusUnauthorized)
	s.ask(t, v, http.MethodDelete, "/v1/organizations/"+v.organization+"/api-keys/"+kept.object(t)["id"].(string), nil).want(t, http.StatusNoContent)
	if s.ask(t, v, http.MethodGet, "/v1/me", nil).status != http.StatusOK {
		t.Error("the victim's key is no good any more")
	}
}

// victimPolicy allows everything but one topic, whose denials have ids.
const victimPolicy = `package mqtt

jewels := {"` + jewel + `"}

grants contains {"action": "all", "filter": "#"}

grants contains {"action": "subscribe", "filter": "$SYS/#"}

grants contains {"action": "publish", "filter": "denied/#", "effect": "deny"}
`

// byPolicy looks for the victim in what a policy can see, and reads what is known
// of the victim's.
func (s *siege) byPolicy(t *testing.T) {
	base := "/v1/tenants/attacker/policies"
	test := func(rule string) answer {
		files := map[string]string{"policy.rego": "package mqtt\n\ngrants := []\n", "policy_test.rego": "package mqtt_test\n\ntest_leak if {\n\t" + rule + "\n}\n"}
		return s.ask(t, s.attacker, http.MethodPost, base+":test", map[string]any{"files": files})
	}
	if got := test("data.mqtt.grants == []").want(t, http.StatusOK); !bytes.Contains(got.body, []byte(`"passed":1`)) && !bytes.Contains(got.body, []byte(`"passed":true`)) {
		t.Fatalf("a test that holds: %s", got.body)
	}
	for _, rule := range []string{
		"data.mqtt.jewels", "data.victim", "data.tenants", "data.tenant.victim", "data.manor", "data.system", "data.organizations", "data.policies", "data.rbac",
		`some x; data[x].jewels`, "input.client", "input.tenant", `walk(data.mqtt, [_, "` + jewel + `"])`, "http.send({\"method\": \"get\", \"url\": \"" + s.p.API + "\"})",
		"opa.runtime()", `net.lookup_ip_addr("localhost")`, `trace("x")`, `rego.metadata.chain()[_].annotations.victim`, "data.mqtt.grants[_]",
	} {
		got := test(rule)
		got.clean(t)
		if got.status == http.StatusOK && !bytes.Contains(got.body, []byte(`"passed":0`)) && !bytes.Contains(got.body, []byte(`"passed":false`)) || got.status != http.StatusOK && got.status != http.StatusBadRequest {
			t.Errorf("a policy sees %s: %d %s", rule, got.status, got.body)
		}
	}
	s.ask(t, s.attacker, http.MethodGet, base+"/1", nil).refused(t, http.StatusNotFound)
	s.ask(t, s.attacker, http.MethodPost, base+":rollback", map[string]any{"revision": 1}).refused(t, http.StatusNotFound)
	s.ask(t, s.attacker, http.MethodPost, base+":simulate", map[string]any{"revision": 1}).refused(t, http.StatusNotFound)
	// The same package and file as the victim's, and a hole for everybody.
	files := map[string]string{"policy.rego": "package mqtt\n\ngrants contains {\"action\": \"all\", \"filter\": \"#\"}\n\ngrants contains {\"action\": \"subscribe\", \"filter\": \"$SYS/#\"}\n"}
	s.ask(t, s.attacker, http.MethodPut, base, map[string]any{"files": files}).want(t, http.StatusOK)
	if r := s.victim.watcher.publish(t, mqtt.Message{Topic: []byte("denied/1"), Payload: []byte(jewel)}); r != mqtt.NotAuthorized {
		t.Errorf("the victim's own policy denies denied/1: %v", r)
	}
	decision := s.decision(t)
	question := map[string]any{"decision": decision}
	s.ask(t, s.victim, http.MethodPost, "/v1/tenants/victim/policies:explain", question).want(t, http.StatusOK)
	s.ask(t, s.attacker, http.MethodPost, base+":explain", question).refused(t, http.StatusNotFound)
	s.ask(t, s.attacker, http.MethodPost, base+":simulate", map[string]any{"files": files}).want(t, http.StatusOK).clean(t)
	s.ask(t, s.attacker, http.MethodGet, "/v1/tenants/attacker/events?client=watcher", nil).want(t, http.StatusOK).clean(t)
	s.ask(t, s.attacker, http.MethodDelete, base, nil).want(t, http.StatusNoContent)
}

// decision waits for the id of a denial in the victim's history.
func (s *siege) decision(t *testing.T) (id string) {
	t.Helper()
	found := regexp.MustCompile(`dec_[A-Z0-9]+`)
	var events, explained answer
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		events = s.ask(t, s.victim, http.MethodGet, "/v1/tenants/victim/events?kind=dropped", nil).want(t, http.StatusOK)
		if id = string(found.Find(events.body)); id != "" {
			if explained = s.ask(t, s.victim, http.MethodPost, "/v1/tenants/victim/policies:explain", map[string]any{"decision": id}); explained.status == http.StatusOK {
				break
			}
		}
		if time.Now().After(end) {
			t.Fatalf("the victim's history has no denial that can be explained after 10 s: %s, %s", events.body, explained.body)
		}
	}
	return id
}
