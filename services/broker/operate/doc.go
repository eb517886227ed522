// SPDX-License-Identifier: Apache-2.0

// Package operate is the cluster of brokers as the people see it who run it: the
// commands of /api/v1 on the operator listener, /status.json and the page /status.
//
// A command is a path of VerneMQ's words (cluster/show), its arguments are those of
// the query, and its answer is a list of Elements: tables, texts and alerts, in
// VerneMQ's form. What changes something is a POST, taken from this machine only.
//
// Cluster is what the commands are asked of; services/broker implements it. Each
// broker answers for all of them. The package owns no goroutine and must not know how
// brokers talk to each other.
package operate
