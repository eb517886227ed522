// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/manormq/manor/tenancy"
)

// What TestAccess leaves: what is in a tenant or an organization and is not there, and the
// operations that are about the caller.

// missingTable says how it is answered when what an operation is about, within its tenant or
// organization, is not there: a code of 404, or a status.
var missingTable = map[string]any{
	"get-api-key":                "api_key_not_found",
	"update-api-key":             "api_key_not_found",
	"rotate-api-key":             "api_key_not_found",
	"delete-api-key":             "api_key_not_found",
	"get-member":                 "member_not_found",
	"update-member":              "member_not_found",
	"remove-member":              "member_not_found",
	"delete-ban":                 "ban_not_found",
	"delete-claim":               "claim_not_found",
	"get-client":                 "client_not_found",
	"delete-client":              "client_not_found",
	"get-client-queue":           "client_not_found",
	"list-client-subscriptions":  "client_not_found",
	"get-client-timeline":        200, // it is of clients whose session is gone, too
	"delete-credential":          "credential_not_found",
	"replace-credential-session": "credential_not_found",
	"get-device":                 "device_not_found",
	"replace-device":             200, // it is made
	"delete-device":              "device_not_found",
	"get-domain":                 "domain_not_found",
	"delete-domain":              "domain_not_found",
	"verify-domain":              "domain_not_found",
	"renew-domain":               "domain_not_found",
	"replace-domain-certificate": "domain_not_found",
	"get-operation":              "operation_not_found",
	"get-policy":                 "policy_not_found",
}

// nowhere are ids of nothing, in the form that they have.
var nowhere = map[string]string{
	"{key}": "key_none", "{member}": "mem_none", "{ban}": "ban_none", "{claim}": "claim_none", "{client_id}": "nobody", "{username}": "nobody", "{device}": "nothing",
	"{domain}": "nowhere.example.com", "{operation}": "op_none", "{revision}": "999",
}

var parameters = regexp.MustCompile(`\{\w+\}`)

// TestAccess_Missing asks for every operation about something that is not there. A new one
// without a row fails.
func TestAccess_Missing(t *testing.T) {
	w := newWorld(t)
	w.data.answer.Clients, w.data.answer.Found = nil, false
	routes, seen := w.routes(), map[string]bool{}
	for _, id := range slices.Sorted(maps.Keys(routes)) {
		r := routes[id]
		ofTenant := strings.Contains(r.path, "{tenant}")
		if ofTenant || strings.Contains(r.path, "{organization}") {
			path, code := strings.Replace(strings.Replace(r.path, "{tenant}", "nobodys", 1), "{organization}", "org_nobodys", 1), "organization_not_found"
			if ofTenant {
				code = "tenant_not_found"
			}
			w.want(w.do(r.method, w.fill(path), w.owner, accessTable[id].body), 404, code)
		}
		path := r.path
		for _, name := range parameters.FindAllString(r.path, -1) {
			if name != "{tenant}" && name != "{organization}" {
				path = strings.ReplaceAll(path, name, nowhere[name])
			}
		}
		if path == r.path {
			continue
		}
		seen[id] = true
		w.prepare(id)
		got := w.do(r.method, w.fill(path), w.owner, accessTable[id].body)
		switch want := missingTable[id].(type) {
		case string:
			w.want(got, 404, want)
		case int:
			w.want(got, want, "")
		default:
			t.Errorf("missingTable has no row for the operation %s: %d %s", id, got.status, got.body)
		}
	}
	for id := range missingTable {
		if !seen[id] {
			t.Errorf("missingTable has a row for %s, which is about nothing within a tenant or an organization", id)
		}
	}
}

// TestAccess_Own asks for the operations that are about the caller: each has its own answer for
// each caller, and tells nothing of others.
func TestAccess_Own(t *testing.T) {
	w := newWorld(t)
	routes := w.routes()
	beta := w.want(w.do("GET", "/v1/tenants/beta", w.beta, ""), 200, "")["organization"]
	_, scoped := w.newKey(tenancy.Access{Permissions: []string{"usage:read"}, Tenants: []string{"acme"}})
	_, token := w.joined("mine@acme.example", "viewer")
	_, other := w.joined("other@acme.example", "viewer")
	_, leaving := w.joined("leaving@acme.example", "viewer")
	good := map[string]func(r route){
		"get-me": func(r route) {
			for key, of := range map[string]any{w.owner: w.org, scoped: w.org, token: w.org, w.beta: beta} {
				if got := w.want(w.do(r.method, r.path, key, ""), 200, "")["organization"]; got != of {
					t.Errorf("get-me says %v, expected %v", got, of)
				}
			}
		},
		"list-plans": func(r route) {
			for _, key := range []string{w.owner, scoped, token, w.beta} {
				if len(w.want(w.do(r.method, r.path, key, ""), 200, "")["items"].([]any)) == 0 {
					t.Error("list-plans has no plans")
				}
			}
		},
		"sign-out": func(r route) {
			w.want(w.do(r.method, r.path, w.beta, ""), 400, "not_signed_in")
			w.want(w.do(r.method, r.path, leaving, ""), 204, "")
			w.want(w.do("GET", "/v1/me", leaving, ""), 401, "token_invalid")
			w.want(w.do("GET", "/v1/me", other, ""), 200, "")
		},
	}
	for _, id := range ownOperations {
		r, ok := good[id]
		if !ok {
			t.Errorf("there is no test of the operation %s", id)
			continue
		}
		w.want(w.do(routes[id].method, routes[id].path+"?nonsense=1", token, ""), 400, "request_invalid")
		w.want(w.do(routes[id].method, routes[id].path, w.owner+"x", ""), 401, "api_key_invalid")
		r(routes[id])
	}
}
