// SPDX-License-Identifier: Apache-2.0

package domains

import (
	"fmt"
	"testing"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/bus/mem"
	"github.com/manormq/manor/infra/errs"
)

// A tenant's orders are bounded in an hour and in a day; all tenants' leave a third to
// renewals; what is refused is not counted.
func TestOrders(t *testing.T) {
	b, err := mem.New().Bucket(t.Context(), bus.BucketConfig{Name: OrdersBucket})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	o := &orders{b, 90, func() time.Time { return now }}
	// take returns how many of n orders are made, and until when the next waits.
	take := func(tenant string, renewal bool, n int) (taken int, wait time.Duration, code string) {
		t.Helper()
		for range n {
			until, why, err := o.take(t.Context(), tenant, renewal)
			if err != nil {
				t.Fatal(err)
			}
			if why == nil {
				taken++
				continue
			}
			if wait, code = until.Sub(now), errs.CodeOf(why); wait <= 0 {
				t.Errorf("it waits until %v", until)
			}
		}
		return taken, wait, code
	}
	day := 0
	for range 4 {
		n, wait, code := take("acme", false, 20)
		if n != newHourly || code != "domain_orders" || wait > time.Hour+slotTime {
			t.Errorf("%d in an hour, then %v %s", n, wait, code)
		}
		day += n
		now = now.Add(wait + 2*time.Hour)
	}
	if n, wait, _ := take("acme", false, 60); day+n != newDaily || wait < 8*time.Hour {
		t.Errorf("%d in a day, then %v", day+n, wait)
	}
	if n, _, _ := take("acme", true, 1); n != 1 {
		t.Error("new ones take the place of renewals")
	}
	now = now.Add(48 * time.Hour)
	taken := 0
	for n := range 8 {
		m, _, _ := take(fmt.Sprint("tenant-", n), false, newHourly)
		taken += m
	}
	if taken != 60 {
		t.Errorf("%d new ones of all tenants, want 60", taken)
	}
	if _, _, code := take("other", false, 1); code != "orders_paused" {
		t.Errorf("beyond that: %q", code)
	}
	if n, _, code := take("beta", true, 40); n != 30 || code != "orders_paused" {
		t.Errorf("%d renewals besides, %q", n, code)
	}
	now = now.Add(orderWindow + slotTime)
	if n, _, _ := take("other", false, 11); n != newHourly {
		t.Errorf("later: %d", n)
	}
	if until, err := o.pause(t.Context(), 0); err != nil || until.Sub(now) != pauseTime {
		t.Errorf("paused until %v %v", until, err)
	}
	if n, wait, code := take("beta", true, 1); n != 0 || wait != pauseTime || code != "orders_paused" {
		t.Errorf("while it is paused: %d, %v %s", n, wait, code)
	}
	if until, err := o.pause(t.Context(), time.Hour*24*365); err != nil || until.Sub(now) != pauseMost {
		t.Errorf("paused until %v %v", until, err)
	}
}
