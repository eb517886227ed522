// SPDX-License-Identifier: Apache-2.0

package decide_test

import (
	"context"
	"encoding/json"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/manormq/manor/infra/bus/mem"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/decide"
	"github.com/manormq/manor/tenancy/store"
)

// slowCheck works for seconds, which its quota cuts off after 200 ms.
const slowCheck = `package mqtt

dynamic := true

grants contains {"action": "all", "filter": "#"}

check := {"allow": true} if {
	input.topic != "slow"
}

check := {"allow": true} if {
	input.topic == "slow"
	count([1 | some a in many; some b in many; some c in many; some d in many; a + b + c + d < 0]) == 0
}

many := {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29}
`

// slowWorld answers gateways about two tenants, slow and other, that have the same policy.
func slowWorld(t *testing.T, rules string) *mem.Bus {
	t.Helper()
	b := mem.New()
	records, err := store.New(t.Context(), store.Config{Bus: b, Log: telemetry.Discard(), Region: "local"})
	if err != nil {
		t.Fatal(err)
	}
	s, err := decide.New(decide.Config{Store: records, Log: telemetry.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	wg.Go(func() { _ = s.Run(ctx) })
	for _, id := range []string{"slow", "other"} {
		if _, err := records.EnsureTenant(ctx, id, store.EnsureOptions{Plan: tenancy.PlanPro}); err != nil {
			t.Fatal(err)
		}
		r, err := records.Tenant(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		files := map[string]string{"policy.rego": rules}
		p, sets, err := s.Compile(ctx, r, files)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := records.AddPolicy(ctx, r, store.Policy{Files: files, Dynamic: p.Dynamic}, sets); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// TestCheck_Turns: a tenant whose mqtt.check works long keeps no other waiting, and no
// question is worked on for longer than its gateway waits.
func TestCheck_Turns(t *testing.T) {
	b := slowWorld(t, slowCheck)
	ask := func(tenant, topic string, n int) (*tenancy.CheckAnswer, error) {
		q := tenancy.CheckQuestion{Tenant: tenant, Revision: 1, Class: tenancy.DefaultClass}
		for range n {
			q.Items = append(q.Items, tenancy.CheckItem{Action: tenancy.ActionPublish, Topic: topic})
		}
		body, err := json.Marshal(q)
		if err != nil {
			return nil, err
		}
		out, err := b.Request(t.Context(), tenancy.CheckSubject, body)
		if err != nil {
			return nil, err
		}
		a := &tenancy.CheckAnswer{}
		return a, json.Unmarshal(out, a)
	}
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if a, err := ask("other", "a", 1); err == nil && len(a.Verdicts) == 1 && a.Verdicts[0].Allow {
			break
		} else if time.Now().After(end) {
			t.Fatalf("got %+v, %v", a, err)
		}
	}
	if a, err := ask("slow", "slow", 1); err != nil || a.Verdicts[0].Allow || !strings.Contains(a.Verdicts[0].Why, "policy_time_ms") {
		t.Fatalf("what works too long: %+v, %v", a, err)
	}
	begin := time.Now()
	var began, asked sync.WaitGroup
	for range 40 * runtime.GOMAXPROCS(0) {
		began.Add(1)
		asked.Go(func() {
			began.Done()
			_, err := ask("slow", "slow", 100)
			if took := time.Since(begin); !errs.Is(err, errs.Unavailable) || took > tenancy.CheckTime+2*time.Second {
				t.Errorf("after %s: %v", took, err)
			}
		})
	}
	began.Wait()
	var worst time.Duration
	for range 100 {
		at := time.Now()
		if a, err := ask("other", "a", 1); err != nil || !a.Verdicts[0].Allow {
			t.Fatalf("another tenant: %+v, %v", a, err)
		}
		worst = max(worst, time.Since(at))
	}
	if took := time.Since(begin); took > time.Second {
		t.Errorf("100 questions of another tenant took %s, the worst %s", took, worst)
	}
	asked.Wait()
}

// slowConnect is slowCheck for mqtt.connect.
const slowConnect = `package mqtt

grants contains {"action": "all", "filter": "#"}

connect := {"allow": true} if input.client.user != "slow"

connect := {"allow": true} if {
	input.client.user == "slow"
	count([1 | some a in many; some b in many; some c in many; some d in many; a + b + c + d < 0]) == 0
}

many := {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29}
`

// TestConnect_Turns: a tenant whose mqtt.connect works long keeps no other's clients
// waiting, and no question is worked on for longer than its gateway waits.
func TestConnect_Turns(t *testing.T) {
	b := slowWorld(t, slowConnect)
	ask := func(tenant, user string) (a tenancy.ConnectAnswer, err error) {
		body, err := json.Marshal(tenancy.ConnectQuestion{Tenant: tenant, Revision: 1, Arrival: tenancy.Arrival{Client: tenancy.Subject{ClientID: user, Username: user}}})
		if err != nil {
			return a, err
		}
		out, err := b.Request(t.Context(), tenancy.ConnectSubject, body)
		if err == nil {
			err = json.Unmarshal(out, &a)
		}
		return a, err
	}
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if a, err := ask("other", "a"); err == nil && a.Allow {
			break
		} else if time.Now().After(end) {
			t.Fatalf("got %+v, %v", a, err)
		}
	}
	begin := time.Now()
	var began, asked sync.WaitGroup
	var busy atomic.Int64
	for range 40 * runtime.GOMAXPROCS(0) {
		began.Add(1)
		asked.Go(func() {
			began.Done()
			a, err := ask("slow", "slow")
			if errs.Is(err, errs.Unavailable) {
				busy.Add(1)
			}
			if took := time.Since(begin); a.Allow || took > tenancy.ConnectTime+2*time.Second {
				t.Errorf("after %s: %+v, %v", took, a, err)
			}
		})
	}
	began.Wait()
	for range 100 {
		if a, err := ask("other", "a"); err != nil || !a.Allow {
			t.Fatalf("another tenant: %+v, %v", a, err)
		}
	}
	if took := time.Since(begin); took > time.Second {
		t.Errorf("100 questions of another tenant took %s", took)
	}
	if asked.Wait(); busy.Load() == 0 {
		t.Error("all of the slow tenant's questions were answered: there is no bound")
	}
}
