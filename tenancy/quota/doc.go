// SPDX-License-Identifier: Apache-2.0

// Package quota lends parts of a tenant's limits to the gateways of a region, so that
// a limit holds across them (ADR 0042). There is no lender: each gateway tells the
// others in a Report what it wants and what it holds, and each computes from the same
// reports the same parts. Everything is a part of the limit, from 0 to 1, so that a
// changed limit needs no other parts. The package is pure: it is told the time, does no
// I/O and owns no goroutine. No type is safe for concurrent use.
package quota
