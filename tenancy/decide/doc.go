// SPDX-License-Identifier: Apache-2.0

// Package decide follows tenants' own policies where OPA is: it answers for gateways
// what mqtt.connect says of a client, remembers what gateways have decided lately, and
// holds a revision against that before it is live, or beside the live one (shadow).
// Run owns its goroutines. What it remembers is of this process: it begins anew with
// it. It never allows because something went wrong.
package decide
