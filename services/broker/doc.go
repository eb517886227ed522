// SPDX-License-Identifier: Apache-2.0

// Package broker is the broker role: it owns sessions, queues, routes and
// retained messages, in a LevelDB store, and answers the gateways' links. It
// knows no network connection of a client, no password and no protocol version:
// those end at the gateway.
//
// A Broker owns the goroutines of its shards, of its committer, and of the
// links that it serves.
package broker
