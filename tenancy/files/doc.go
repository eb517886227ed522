// SPDX-License-Identifier: Apache-2.0

// Package files reads the files of VerneMQ's plugins vmq_passwd and vmq_acl, and turns
// the latter into a policy in Rego. It owns no goroutine, and knows neither where the
// files come from nor what becomes of what they say.
package files
