// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"testing"

	"github.com/manormq/manor/services/api/client"
)

// What is said of a tenant's cell.
func TestGrown(t *testing.T) {
	for _, c := range []struct {
		cell *client.TenantCell
		want string
	}{
		{nil, ""},
		{&client.TenantCell{Wanted: 4, Has: 4}, "; it has 4 partitions"},
		{&client.TenantCell{Wanted: 4, Waits: "soon"}, "; it is to have 4 partitions: soon"},
		{&client.TenantCell{Wanted: 4, Has: 1, Waits: "b1 is down"}, "; it has 1 of 4 partitions, and waits: b1 is down"},
	} {
		if got := grown(c.cell); got != c.want {
			t.Errorf("%+v: %q, expected %q", c.cell, got, c.want)
		}
	}
}
