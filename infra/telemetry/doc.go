// SPDX-License-Identifier: Apache-2.0

// Package telemetry makes the logger and the metrics of a process. Both are
// handed to whoever uses them; nothing here is global and nothing owns a
// goroutine. It knows no role: each role declares its own table of metrics.
package telemetry
