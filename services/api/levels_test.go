// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/manormq/manor/services/api"
	"github.com/manormq/manor/tenancy/events"
)

// The history of a tenant says when it has come to 80% of what it may have, and to all of it, with
// what the API makes one at a time and many at once.
func TestLevels(t *testing.T) {
	var mu sync.Mutex
	var told []string
	f := newFixture(t, func(c *api.Config) {
		c.Happened = func(tenant string, e events.Event) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, fmt.Sprintf("%s %s %s", tenant, e.Kind, e.Reason))
		}
	})
	want := func(want ...string) {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		if !slices.Equal(told, want) {
			t.Errorf("told %q, expected %q", told, want)
		}
		told = nil
	}
	const base = "/v1/tenants/acme"
	key := f.signUp("acme")
	f.want(f.do("PUT", base+"/quotas/overrides", key, `{"credentials":5,"devices":10}`), 200, "")
	want()
	for i := range 2 { // there is one
		f.want(f.do("POST", base+"/credentials", key, fmt.Sprintf(`{"username":"u%d"}`, i)), 201, "")
	}
	want()
	f.want(f.do("POST", base+"/credentials", key, `{"username":"near"}`), 201, "")
	want("acme quota_80 credentials")
	f.want(f.do("POST", base+"/credentials", key, `{"username":"last"}`), 201, "")
	want("acme quota_100 credentials")
	f.want(f.do("POST", base+"/credentials", key, `{"username":"beyond"}`), 409, "quota_exceeded")
	want()

	f.want(f.do("PUT", base+"/devices/d0", key, `{}`), 200, "")
	body := `{"items":[`
	for i := range 8 {
		body += fmt.Sprintf(`{"name":"d%d"},`, i)
	}
	f.want(f.do("POST", base+"/devices:import", key, body[:len(body)-1]+`]}`), 200, "")
	want("acme quota_80 devices")
	f.want(f.do("PUT", base+"/devices/d0", key, `{}`), 200, "")
	f.want(f.do("PUT", base+"/devices/d8", key, `{}`), 200, "")
	want()
	f.want(f.do("PUT", base+"/devices/d9", key, `{}`), 200, "")
	want("acme quota_100 devices")

	// What is the organization's is told to all of its tenants.
	f.want(f.do("PUT", base+"/quotas/overrides", key, `{"tenants":2,"domains":2}`), 200, "")
	f.want(f.do("POST", base+"/domains", key, `{"fqdn":"d1.example.com"}`), 201, "")
	want()
	f.want(f.do("POST", base+"/domains", key, `{"fqdn":"d2.example.com"}`), 201, "")
	want("acme quota_100 domains")
	f.want(f.do("POST", "/v1/organizations/"+f.want(f.do("GET", "/v1/me", key, ""), 200, "")["organization"].(string)+"/tenants", key, `{"id":"second","plan":"free"}`), 201, "")
	want("acme quota_100 tenants", "second quota_100 tenants")
}
