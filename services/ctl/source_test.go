// SPDX-License-Identifier: Apache-2.0

package ctl

import "testing"

func TestSources(t *testing.T) {
	organizationOf(t)
	shown(t, "KIND", "credential", "sources", "acme")
	if v := good(t, "credential", "sources", "acme"); len(v["items"].([]any)) != 0 {
		t.Errorf("got %v", v)
	}
	bad(t, 1, "no tenant", "credential", "sources", "other")
}
