// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// openRow has the operations that need no key succeed, and asks them wrongly.
type openRow struct {
	// good makes a body that succeeds with status; most are good once.
	good   func(w *world) string
	status int
	// refused is a body that fits the document and is refused with that status and
	// code: what stands for a key here is wrong.
	refused       string
	refusedStatus int
	code          string
}

// openTable are the operations that need no key: what accessTable is for the rest.
var openTable = map[string]openRow{
	"sign-up": {
		func(*world) string { return strings.ReplaceAll(signUpBody, "acme", "fresh") }, 201,
		signUpBody, 409, "tenant_taken",
	},
	"sign-in": {
		func(w *world) string {
			return fmt.Sprintf(`{"organization":"%s","email":"ops@acme.example","password":"choose-a-good-one"}`, w.org)
		}, 201,
		`{"organization":"org_none","email":"ops@acme.example","password":"choose-a-good-one"}`, 401, "sign_in_failed",
	},
	"accept-invitation": {
		func(w *world) string {
			v := w.want(w.do("POST", "/v1/organizations/"+w.org+"/members", w.owner, `{"email":"dev@acme.example","role":"developer"}`), 201, "")
			return fmt.Sprintf(`{"invitation":"%s","password":"a-good-password"}`, v["invitation"])
		}, 200,
		`{"invitation":"mi_none","password":"a-good-password"}`, 403, "invitation_invalid",
	},
	"redeem-claim": {
		func(w *world) string {
			w.prepare("create-claim")
			v := w.want(w.do("POST", "/v1/tenants/acme/claims", w.owner, `{"username":"press-9"}`), 201, "")
			return fmt.Sprintf(`{"claim":"%s","csr":"%s"}`, v["secret"], csr)
		}, 201,
		`{"claim":"mc_acme_none","csr":"` + csr + `"}`, 403, "claim_refused",
	},
	"verify-sign-up": { // whose success needs a mail: TestSignUp_Verified
		nil, 0,
		`{"code":"mv_none"}`, 403, "code_invalid",
	},
}

// TestOpenOperations asks for every operation that needs no key. A new one without a
// row fails.
func TestOpenOperations(t *testing.T) {
	w := newWorld(t)
	open := map[string]route{}
	for path, item := range w.do("GET", "/v1/openapi.json", "", "").json(t)["paths"].(map[string]any) {
		for method, op := range item.(map[string]any) {
			if op := op.(map[string]any); op["security"] == nil {
				open[op["operationId"].(string)] = route{strings.ToUpper(method), path}
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(open)) {
		row, ok := openTable[id]
		if !ok {
			t.Errorf("openTable has no row for the operation %s", id)
			continue
		}
		t.Run(id, func(t *testing.T) {
			r := open[id]
			w.t = t
			// A key, whosever it is, makes no difference.
			for _, key := range []string{"", w.beta, w.owner + "x"} {
				w.want(w.do(r.method, r.path, key, row.refused), row.refusedStatus, row.code)
			}
			w.want(w.do(r.method, r.path, "", `{}`), 400, "request_invalid")
			w.want(w.do(r.method, r.path, "", `[]`), 400, "request_invalid")
			w.want(w.do(r.method, r.path+"?nonsense=1", "", row.refused), 400, "request_invalid")
			w.want(w.do(r.method, r.path, "", strings.Replace(row.refused, "{", `{"nonsense":1,`, 1)), 400, "request_invalid")
			if row.good != nil {
				body := row.good(w)
				w.want(w.do(r.method, r.path, "", body), row.status, "")
			}
		})
	}
	for id := range openTable {
		if _, ok := open[id]; !ok {
			t.Errorf("openTable has a row for %s, which is no operation without a key", id)
		}
	}
}
