// SPDX-License-Identifier: Apache-2.0

// Package script runs conversations with an MQTT broker, any broker, and says
// where one does not keep to the specification. The conversations are text, in
// the folder scripts; docs/conform-scripts.md is their language. A script is
// written once for the versions that it applies to, cites the statements that it
// checks, and uses names of its own, so that all of them can run at once against
// a broker that others use too.
//
// Beside what a script expects, every packet is held to what is true at any time
// (monitor.go) and to its encoding (package wire). A run owns its connections and
// their goroutines until it returns. Nothing here knows Manor.
package script
