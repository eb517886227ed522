// SPDX-License-Identifier: Apache-2.0

// Package policy decides with OPA who may do what through the API: the rules are
// Rego that is built in (rbac.rego) and prepared once. tenancyd evaluates it;
// gateways and brokers never link it. It owns no goroutine, and knows neither
// HTTP nor where roles are kept.
package policy
