// SPDX-License-Identifier: Apache-2.0

package tenancy

import "slices"

// OwnPlans returns the names of the plans that whoever signs up, and owners, may choose by
// themselves where the installation says nothing else: those with a limit for every quota.
func OwnPlans() []string { return []string{PlanFree, PlanStarter, PlanPro} }

// narrowerAbove are the quotas of which a higher value gives less.
var narrowerAbove = []string{"keep_alive_minimum"}

// Exceeds reports whether a limit of that quota gives a tenant more than the plan does.
func (p Plan) Exceeds(name string, limit int64) bool {
	has, ok := p.Limits.Get(name)
	switch {
	case !ok || has < 0:
		return false
	case limit < 0:
		return true
	case slices.Contains(narrowerAbove, name):
		return limit < has
	}
	return limit > has
}
