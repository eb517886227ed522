// SPDX-License-Identifier: Apache-2.0

package domains

import (
	"testing"
	"testing/synctest"
	"time"
)

// One tenant has one turn at a time, however often it asks, and others have theirs.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := newTurns(2)
		var leave []func()
		take := func(tenant string, want bool) {
			t.Helper()
			begin := time.Now()
			l, ok := all.take(t.Context(), tenant, time.Second)
			if ok != want || !ok && time.Since(begin) != time.Second {
				t.Errorf("%s has a turn: %v after %v, want %v", tenant, ok, time.Since(begin), want)
			}
			if ok {
				leave = append(leave, l)
			}
		}
		take("acme", true)
		take("acme", false)
		take("beta", true)
		take("gamma", false) // two are under way
		leave[0]()
		take("gamma", true)
		leave[1]()
		leave[2]()
		if len(all.single) != 0 || len(all.all) != 0 {
			t.Errorf("left: %d tenants, %d turns", len(all.single), len(all.all))
		}
	})
}
