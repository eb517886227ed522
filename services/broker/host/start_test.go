// SPDX-License-Identifier: Apache-2.0

package host

import (
	"testing"
	"time"

	"github.com/manormq/manor/infra/kv/mem"
)

// The numbers of starts grow with a clock that goes back, and with a disk that is
// lost.
func TestNextRun(t *testing.T) {
	now, store, last := time.Date(2026, 11, 26, 0, 0, 0, 0, time.UTC), mem.New(), uint64(0)
	for i, at := range []time.Time{now, now, now.Add(-time.Hour), {}, now.Add(time.Hour), now.Add(2 * time.Hour)} {
		if i == 5 {
			store = mem.New()
		}
		run, err := nextRun(store, at)
		if err != nil || run <= last || run >= 1<<40 {
			t.Errorf("start %d has number %d after %d, error %v", i, run, last, err)
		}
		last = run
	}
}
