// SPDX-License-Identifier: Apache-2.0

// Package cluster is the conversation between brokers: messages for sessions of
// partitions that another broker owns, the answers to them, and the bytes of those
// who replicate partitions and metadata, which it carries without knowing them.
//
// A broker opens one link to each of the others, over which go its requests and
// come the answers. So a link that is lost ends the requests of one side only, and
// each side knows which. The layout is drawn in docs/wire/cluster.md.
//
// What waits for a link stands in lanes, one for each tenant, that are served in
// turn by bytes (infra/fair). At QoS 0 it is bounded, and what is beyond the bound
// is refused; above that it is bounded by the windows of those who published it, who
// get no acknowledgement meanwhile. What brokers say of themselves (Tell) comes
// first and in its order.
//
// A Mesh owns a goroutine for each broker that it dials, those of infra/wire, and
// one for each connection that it accepts. The package must not know shards,
// sessions or stores.
package cluster
