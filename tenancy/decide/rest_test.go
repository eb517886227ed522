// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/infra/bus/mem"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/store"
)

// A tenant's policy that could not be cut off is not asked for ten times what it took, and
// only that tenant's.
func TestRests(t *testing.T) {
	now := time.Unix(1000, 0)
	r, err := newRests(func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	const bound = 200 * time.Millisecond
	run := func(took, bound time.Duration) {
		ended := r.watch("slow", bound)
		now = now.Add(took)
		ended()
	}
	run(bound, bound)
	run(2*bound+restGrace, bound)
	run(time.Hour, 0)
	if why := r.why("slow"); why != "" {
		t.Fatalf("it was cut off in time, or has no bound: %s", why)
	}
	run(3*time.Second, bound)
	if why := r.why("slow"); !strings.Contains(why, "30s more") || !strings.Contains(why, "took 3s") {
		t.Errorf("after 3 s: %q", why)
	}
	if why := r.why("other"); why != "" {
		t.Errorf("another tenant: %s", why)
	}
	now = now.Add(30*time.Second - 1)
	if r.why("slow") == "" {
		t.Error("it is asked before 30 s are over")
	}
	now = now.Add(1)
	if why := r.why("slow"); why != "" {
		t.Errorf("after 30 s: %s", why)
	}
	run(time.Hour, bound)
	now = now.Add(restMost)
	if why := r.why("slow"); why != "" {
		t.Errorf("after the longest rest: %s", why)
	}
}

// While it rests both questions of gateways are answered with why, without a turn.
func TestRests_Asked(t *testing.T) {
	records, err := store.New(t.Context(), store.Config{Bus: mem.New(), Log: telemetry.Discard(), Region: "local"})
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{Store: records, Log: telemetry.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	s.rests.until.Add("slow", rest{until: time.Now().Add(time.Hour), took: time.Minute})
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // who waits for a turn gets none
	body, err := json.Marshal(tenancy.CheckQuestion{Tenant: "slow", Items: make([]tenancy.CheckItem, 2)})
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.check(ctx, body)
	if err != nil {
		t.Fatal(err)
	}
	var checked tenancy.CheckAnswer
	if err := json.Unmarshal(out, &checked); err != nil || len(checked.Verdicts) != 2 {
		t.Fatalf("checked: %s, %v", out, err)
	}
	for _, v := range checked.Verdicts {
		if v.Allow || !strings.Contains(v.Why, "is not asked for") {
			t.Errorf("checked: %+v", v)
		}
	}
	a, err := s.admit(ctx, &tenancy.ConnectQuestion{Tenant: "slow"})
	if err != nil || a.Allow || !strings.Contains(a.Why, "is not asked for") {
		t.Errorf("connect: %+v, %v", a, err)
	}
}
