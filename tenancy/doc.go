// SPDX-License-Identifier: Apache-2.0

// Package tenancy is the vocabulary of who a client is and what it may do:
// tenants, credentials, grants, limits and plans, with the pure checks on
// them, and the Directory through which the other floors ask. It reads no
// clock and owns no goroutine; the services behind the vocabulary are the
// packages below it.
package tenancy
