// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"testing"

	"github.com/manormq/manor/infra/link"
)

// What many sessions have in common is there once, and costs one that comes nothing: not
// even garbage, of which each connection would be as much larger.
func TestShared(t *testing.T) {
	kept := map[link.Limits]*link.Limits{}
	first := shared(kept, unlimited)
	if *first != unlimited {
		t.Errorf("kept %+v", *first)
	}
	if n := testing.AllocsPerRun(100, func() {
		if shared(kept, unlimited) != first {
			t.Error("a second copy was made")
		}
	}); n != 0 {
		t.Errorf("%v allocations for what is there", n)
	}
}
