// SPDX-License-Identifier: Apache-2.0

// Package policy decides with OPA: who may do what through the API, by rules that
// are built in (rbac.rego) and prepared once; and what tenants' own policies say of
// their clients (Program), which are compiled without network, clock or chance, and
// evaluated for as long as their limits allow. tenancyd evaluates it; gateways and
// brokers never link it. It owns no goroutine of its own, and knows neither HTTP nor
// where roles and policies are kept.
package policy
