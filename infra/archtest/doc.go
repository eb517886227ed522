// SPDX-License-Identifier: Apache-2.0

// Package archtest holds the house to its plan: its tests read the source tree
// and fail when an import goes up (order.txt), when a main links what it must
// not, and when a file or a package breaks a rule of CONTRIBUTING.md. It is for
// tests only, owns no goroutine, and knows no package but by name.
package archtest
