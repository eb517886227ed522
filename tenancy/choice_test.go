// SPDX-License-Identifier: Apache-2.0

package tenancy

import "testing"

func TestPlan_Exceeds(t *testing.T) {
	free, err := PlanByName(PlanFree)
	if err != nil {
		t.Fatal(err)
	}
	dev, err := PlanByName(PlanDev)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		plan  Plan
		name  string
		limit int64
		want  bool
	}{
		{free, "connections", 100, false},
		{free, "connections", 101, true},
		{free, "connections", 0, false},
		{free, "connections", Unlimited, true},
		{free, "keep_alive_minimum", 15, false},
		{free, "keep_alive_minimum", 14, true},
		{free, "keep_alive_minimum", 60, false},
		{free, "keep_alive_minimum", Unlimited, true},
		{free, "keep_alive_maximum", 1201, true},
		{dev, "publish_rate", Unlimited, false},
		{dev, "publish_rate", 1 << 40, false},
		{dev, "connections", Unlimited, true},
	} {
		if got := c.plan.Exceeds(c.name, c.limit); got != c.want {
			t.Errorf("%s, %s = %d: %v", c.plan.Name, c.name, c.limit, got)
		}
	}
	// What people choose by themselves limits everything.
	for _, name := range OwnPlans() {
		p, err := PlanByName(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, quota := range QuotaNames() {
			if !p.Exceeds(quota, Unlimited) {
				t.Errorf("the plan %s has no limit for %s", name, quota)
			}
		}
	}
}
