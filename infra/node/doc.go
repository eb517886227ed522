// SPDX-License-Identifier: Apache-2.0

// Package node is the life of a process: its configuration, its ordered start
// and stop, its signals, and the operator's HTTP listener with metrics, health,
// status and profiles. Run owns one goroutine per part; the operator's listener
// owns those of net/http. It knows no role: a role is a list of parts.
package node
