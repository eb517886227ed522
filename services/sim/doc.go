// SPDX-License-Identifier: Apache-2.0

// Package sim is a seeded world: whole clusters of brokers made of the pure machines
// that production runs (partition.Replica, placement.Controller, placement.Watch),
// on simulated disks, links, clocks and a simulated bucket, under faults that the
// seed chooses. In worlds with sessions the brokers have real shards (shard.Set) too,
// whose commits are appends to the replicas, and devices speak MQTT to them. Package
// check judges what the clients and devices saw.
//
// A world is one goroutine and one queue of events. Everything that happens is
// decided by the seed, so a seed that fails can be run again, with a trace, as often
// as it takes: go test ./services/sim -run TestSeeds -runs 1 -seed N -print,
// or TestSessions, or TestPlaced.
//
// The routes of the worlds with sessions are the real routes.Routes over the real metadata.Machine
// of each node (meta.go), on the node's disk and over its links (voice.go). What these worlds do not show:
// spaces of the metadata other than the routes, members that leave for good, an actor that is lower
// than an earlier one because a clock went back while the disk was lost, a link on which metadata wait
// behind other things, and a batch of the metadata that cannot be written. The world of package metadata
// has some of these.
//
// When a node is informed (partition.Config.Informed) is said in informed.go, which is to say what
// package broker does.
//
// The package must not decide anything that a broker decides.
package sim
