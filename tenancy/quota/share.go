// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"math"
	"slices"
)

// shares divides 1 among n gateways. wants, at most n of them, are what some want; the
// others want nothing. Who wants little gets it; who wants more than is left for each
// gets what is left for each (max-min fairness); what nobody wants goes to all in equal
// parts. The result has one for each of wants, and then what each other gets.
//
// With a unit above 0 a share is of use in whole units only: what rounding leaves goes,
// unit by unit, to those that want more, the first first.
func shares(wants []float64, n int, unit float64) (of []float64, others float64) {
	of = slices.Clone(wants)
	sum := 0.0
	for _, w := range wants {
		sum += w
	}
	if sum <= 1 {
		others = (1 - sum) / float64(max(n, 1))
		for i := range of {
			of[i] += others
		}
		return of, others
	}
	level := water(wants)
	left := 1.0
	for i, w := range wants {
		of[i] = min(w, level)
		if unit > 0 {
			of[i] = unit * math.Floor(of[i]/unit+tiny)
		}
		left -= of[i]
	}
	if unit <= 0 {
		return of, 0
	}
	for i, w := range wants {
		if left+tiny*unit < unit {
			break
		}
		if of[i]+unit <= w+tiny*unit {
			of[i] += unit
			left -= unit
		}
	}
	return of, 0
}

// water is the level up to which wants, which are more than 1 together, can be met.
func water(wants []float64) float64 {
	sorted := slices.Sorted(slices.Values(wants))
	left := 1.0
	for i, w := range sorted {
		each := left / float64(len(sorted)-i)
		if w >= each {
			return each
		}
		left -= w
	}
	return 1
}

// tiny is what sums of parts may be off by.
const tiny = 1e-6
