// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"testing"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/tenancy"
)

// A record that cannot be read keeps nobody else's events from being removed, and none of
// its own are.
func testEventDays(t *testing.T, b bus.Bus) {
	s, _ := newStore(t, b)
	must(s.SignUp(t.Context(), signUp("acme")))(t)
	must(s.SetOverrides(t.Context(), "acme", 0, map[string]int64{"event_days": 3}))(t)
	tenants := must(b.Bucket(t.Context(), bus.BucketConfig{Name: tenancy.TenantsBucket}))(t)
	for key, value := range map[string]string{"broken": "{", "planless": `{"id":"planless","plan":"of-another-version"}`} {
		must(tenants.Put(t.Context(), key, []byte(value), bus.Absent))(t)
	}
	days := must(s.EventDays(t.Context()))(t)
	if len(days) != 1 || days["acme"] != 3 {
		t.Errorf("days %v, expected 3 of acme alone", days)
	}
}
