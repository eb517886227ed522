// SPDX-License-Identifier: Apache-2.0

package api

import (
	"slices"
	"testing"

	"github.com/manormq/manor/tenancy"
)

func TestEnforcement_NamesQuotas(t *testing.T) {
	for name := range enforcement {
		if !slices.Contains(tenancy.QuotaNames(), name) {
			t.Errorf("%s is enforced and no quota", name)
		}
	}
}
