// SPDX-License-Identifier: Apache-2.0

package tenancy

import (
	"reflect"
	"testing"

	"github.com/manormq/manor/infra/errs"
)

func TestLimits_TableHasEveryFieldOnce(t *testing.T) {
	n := reflect.TypeFor[Limits]().NumField()
	if len(quotas) != n {
		t.Errorf("%d quotas, %d fields", len(quotas), n)
	}
	var l Limits
	seen := map[*int64]string{}
	for _, q := range quotas {
		p := q.field(&l)
		if other, ok := seen[p]; ok {
			t.Errorf("%s and %s are the same field", q.name, other)
		}
		seen[p] = q.name
	}
	if len(planRows) != n {
		t.Errorf("%d rows of plans, %d quotas", len(planRows), n)
	}
	rows := map[string]bool{}
	for _, r := range planRows {
		if rows[r.name] {
			t.Errorf("two rows for %s", r.name)
		}
		rows[r.name] = true
		for _, v := range []int64{r.free, r.starter, r.pro} {
			if err := ValidLimit(r.name, v); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestLimits_Override(t *testing.T) {
	p, err := PlanByName("dev")
	if err != nil {
		t.Fatal(err)
	}
	l, err := p.Limits.Override(map[string]int64{"connections": 5, "publish_rate_client": 10})
	if err != nil {
		t.Fatal(err)
	}
	if l.Connections != 5 || l.PublishRateClient != 10 || l.QueueMessages != 1_000_000 || l.QueueBytes != 1<<30 {
		t.Errorf("got %+v", l)
	}
	if v, ok := p.Limits.Get("connections"); !ok || v != 250_000 {
		t.Errorf("the plan changed: connections %d", v)
	}
	for _, c := range []struct {
		name string
		v    int64
		code string
	}{
		{"connections", -2, "limit_invalid"},
		{"domains", MaxDomains, ""},
		{"domains", MaxDomains + 1, "limit_invalid"},
		{"receive_maximum", 0, "limit_invalid"},
		{"receive_maximum", 65536, "limit_invalid"},
		{"packet_size", 1, "limit_invalid"},
		{"nothing", 1, "quota_unknown"},
		{"Connections", 1, "quota_unknown"},
		{"receive_maximum", Unlimited, ""},
		{"wildcard_root", 0, ""},
	} {
		if _, err := l.With(c.name, c.v); errs.CodeOf(err) != c.code {
			t.Errorf("With(%s, %d): %v, want code %q", c.name, c.v, err, c.code)
		}
	}
}

func TestPlans(t *testing.T) {
	for _, name := range PlanNames() {
		if _, err := PlanByName(name); err != nil {
			t.Error(err)
		}
	}
	none, _ := PlanByName(PlanNone)
	dev, _ := PlanByName(PlanDev)
	for _, name := range QuotaNames() {
		if v, _ := none.Limits.Get(name); v != Unlimited {
			t.Errorf("plan none limits %s to %d", name, v)
		}
	}
	for _, name := range []string{"connect_rate", "publish_rate", "bytes_in_rate_client", "api_rate", "delivery_rate"} {
		if v, _ := dev.Limits.Get(name); v != Unlimited {
			t.Errorf("plan dev limits %s to %d", name, v)
		}
	}
	if _, err := PlanByName("gold"); errs.CodeOf(err) != "plan_unknown" {
		t.Errorf("plan gold: %v", err)
	}
}
