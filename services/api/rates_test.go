// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/manormq/manor/services/api"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/store"
)

// Who asks for more than the tenant may is told when to come back; other tenants, and
// what is about the organization, count for themselves.
func TestQuota_APIRate(t *testing.T) {
	t.Parallel()
	now := time.Now()
	w := newWorld(t, func(c *api.Config) { c.Now = func() time.Time { return now } })
	set := func(tenant string, n int64) {
		t.Helper()
		if _, err := w.store.SetOverrides(t.Context(), tenant, 0, map[string]int64{"api_rate": n}); err != nil {
			t.Fatal(err)
		}
	}
	set("acme", 2)
	ask := func(path string, most int) (n int, last response) {
		t.Helper()
		for range most {
			if last = w.do("GET", path, w.owner, ""); last.status == 429 {
				return n, last
			}
			n++
		}
		return n, last
	}
	if got := w.do("GET", "/v1/tenants/acme/quotas", w.owner, "").header.Get("RateLimit"); got != `"api_rate";r=3;t=1` {
		t.Errorf("RateLimit %s, expected 3 of 4 left", got)
	}
	now = now.Add(time.Minute)
	n, last := ask("/v1/tenants/acme", 10)
	if n != 4 {
		t.Errorf("%d requests at once, expected those of two seconds: 4", n)
	}
	if policy, left := last.header.Get("RateLimit-Policy"), last.header.Get("RateLimit"); policy != `"api_rate";q=4;w=2` || left != `"api_rate";r=0;t=2` {
		t.Errorf("RateLimit-Policy %s, RateLimit %s", policy, left)
	}
	p := w.want(last, 429, "quota_exceeded")
	if p["quota"] != "api_rate" || p["limit"] != 2.0 || p["retry_after"] != 1.0 || last.header.Get("Retry-After") != "1" {
		t.Errorf("%v, Retry-After %q", p, last.header.Get("Retry-After"))
	}
	w.want(w.do("GET", "/v1/tenants/acme", w.beta, ""), 404, "tenant_not_found") // who may not ask is not counted for the tenant
	w.want(w.do("GET", "/v1/tenants/acme/quotas", w.owner, ""), 429, "quota_exceeded")
	w.want(w.do("GET", "/v1/tenants/second", w.owner, ""), 200, "")
	w.want(w.do("GET", "/v1/tenants/beta", w.beta, ""), 200, "")
	if n, _ := ask("/v1/me", 9); n != 9 {
		t.Errorf("%d requests about the organization, whose other tenant has no limit", n)
	}
	now = now.Add(time.Second)
	if n, _ := ask("/v1/tenants/acme", 10); n != 2 {
		t.Errorf("%d requests a second later, expected 2", n)
	}
	set("acme", tenancy.Unlimited)
	if n, _ := ask("/v1/tenants/acme", 20); n != 20 {
		t.Errorf("%d requests without a limit", n)
	}
	set("acme", 1)
	set("second", 3)
	now = now.Add(time.Minute)
	if n, last := ask("/v1/organizations/"+w.org, 20); n != 6 || last.json(t)["limit"] != 3.0 {
		t.Errorf("%d requests about the organization, %s; expected twice the wider limit", n, last.body)
	}
	w.want(w.do("GET", "/v1/me", w.owner, ""), 429, "quota_exceeded")
}

// An organization makes tenants up to its quota, and no two of one id.
func TestQuota_Tenants(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if _, err := w.store.SetOverrides(t.Context(), "acme", 0, map[string]int64{"tenants": 4}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.SetOverrides(t.Context(), "second", 0, map[string]int64{"tenants": 1}); err != nil {
		t.Fatal(err)
	}
	path := "/v1/organizations/" + w.org + "/tenants"
	makeTenant := func(id string) response {
		return w.do("POST", path, w.owner, fmt.Sprintf(`{"id":%q,"plan":"free"}`, id))
	}
	if _, _, err := w.store.ChangeOrganization(t.Context(), w.org, 0, func(o *store.Organization) error {
		o.Tenants = append(o.Tenants, "third", "beta") // of a process that died, and somebody else's
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	w.want(makeTenant("Not A Label"), 400, "tenant_invalid")
	w.want(w.do("POST", path, w.owner, `{"id":"fourth","plan":"gold"}`), 400, "plan_unknown")
	w.want(makeTenant("beta"), 409, "tenant_taken")
	w.want(w.do("POST", path+"?dry_run=true", w.owner, `{"id":"third"}`), 200, "")
	if made := w.want(makeTenant("third"), 201, ""); made["organization"] != w.org || made["plan"] != tenancy.PlanFree || made["state"] != "active" {
		t.Errorf("made %v", made)
	}
	w.want(w.do("GET", "/v1/tenants/third", w.owner, ""), 200, "")
	w.want(makeTenant("third"), 409, "tenant_taken")
	w.want(makeTenant("fourth"), 201, "")
	for _, query := range []string{"", "?dry_run=true"} {
		p := w.want(w.do("POST", path+query, w.owner, `{"id":"fifth"}`), 409, "quota_exceeded")
		if p["quota"] != "tenants" || p["limit"] != 4.0 || p["usage"] != 4.0 {
			t.Errorf("%v", p)
		}
	}
	var listed []any
	for _, x := range w.do("GET", path, w.owner, "").json(t)["items"].([]any) {
		listed = append(listed, x.(map[string]any)["id"])
	}
	if fmt.Sprint(listed) != "[acme fourth second third]" {
		t.Errorf("listed %v", listed)
	}
	for _, q := range w.do("GET", "/v1/tenants/acme/quotas", w.owner, "").json(t)["items"].([]any) {
		if q := q.(map[string]any); q["name"] == "tenants" && q["usage"] != 4.0 {
			t.Errorf("%v", q)
		}
	}
}

// Three processes of the API keep one rate, wherever they are asked, and one has it all
// when the others are not asked.
func TestQuota_APIRateOfThree(t *testing.T) {
	t.Parallel()
	const rate = 40
	w := newWorld(t)
	w.cfg.Bus = w.bus
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() { cancel(); running.Wait() })
	var all []string
	for range 3 {
		s, err := api.New(w.cfg)
		if err == nil {
			err = s.Start(ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
		running.Go(func() {
			if err := s.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		all = append(all, "http://"+s.Addr()+"/v1/tenants/acme")
	}
	if _, err := w.store.SetOverrides(t.Context(), "acme", 0, map[string]int64{"api_rate": rate}); err != nil {
		t.Fatal(err)
	}
	ask := func(past time.Duration, at ...string) (n int) {
		t.Helper()
		for end := time.Now().Add(past); time.Now().Before(end); time.Sleep(4 * time.Millisecond) {
			for _, url := range at {
				r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("Authorization", "Bearer "+w.owner)
				a, err := http.DefaultClient.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				_ = a.Body.Close()
				if a.StatusCode == http.StatusOK {
					n++
				}
			}
		}
		return n
	}
	// What came in since the beginning, and what may come at once: one bucket has no more.
	// In seconds what one exchange is late counts; infra/jointrate holds 5 % in a minute.
	const late = rate / 4
	begun, total := time.Now(), 0
	for _, at := range [][]string{all, all[1:2]} {
		from := time.Now()
		n := ask(3*time.Second, at...)
		total += n
		if least := time.Since(from).Seconds()*rate*0.95 - late; float64(n) < least {
			t.Errorf("%d requests answered by %d processes, expected at least %.0f", n, len(at), least)
		}
		if most := time.Since(begun).Seconds()*rate*1.05 + 2*rate + late; float64(total) > most {
			t.Errorf("%d requests answered in %v, at last by %d processes, expected at most %.0f", total, time.Since(begun), len(at), most)
		}
	}
}
