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
// The routes of the session worlds are a stand-in (keys.go): routes.Routes and
// metadata.Store run goroutines by the real clock, so no seed would replay with them.
// To have them here Routes needs a clock, a Step as shard.Set has, and an interface
// where it has *metadata.Store; the world would drive a metadata.Machine for each node
// over its network. So what these worlds do not show is: routes that are refused or
// retried, leftovers of former owners that heal, and a store of metadata that is lost.
// The world of package metadata and the tests of package routes have those.
//
// The package must not decide anything that a broker decides.
package sim
