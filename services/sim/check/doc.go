// SPDX-License-Identifier: Apache-2.0

// Package check judges what a simulated cluster did: it is told what clients and
// the partition table saw, and keeps what is against the promises. It owns no
// goroutine, and it must not know how the cluster works: only what was promised.
package check
