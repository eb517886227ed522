// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"math"
	"slices"
)

// shares divides 1 among n gateways. wants, at most n of them, are what some want; the
// others want nothing. Who wants little gets it; who wants more than is left for each
// gets what is left for each (max-min fairness); what nobody wants goes to all in equal
// parts. The result has one for each of wants.
//
// With a unit above 0 a share is of use in whole units only: what rounding leaves goes,
// unit by unit, to those that want more, the first first.
func shares(wants []float64, n int, unit float64) []float64 {
	of := slices.Clone(wants)
	sum := 0.0
	for _, w := range wants {
		sum += w
	}
	if sum <= 1 {
		for i := range of {
			of[i] += (1 - sum) / float64(max(n, 1))
		}
		return of
	}
	level := water(wants)
	left := 1.0
	for i, w := range wants {
		of[i] = whole(min(w, level), unit)
		left -= of[i]
	}
	if unit <= 0 {
		return of
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
	return of
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

// whole is part in whole units, if there are any.
func whole(part, unit float64) float64 {
	if unit <= 0 {
		return part
	}
	return unit * math.Floor(part/unit+tiny)
}

// tiny is what sums of parts may be off by.
const tiny = 1e-6
