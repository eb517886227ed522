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
// or TestSessions, TestPlaced, TestExpiring or TestRough.
//
// There are five kinds of worlds. In those of TestSeeds clients append to partitions, and disks lose
// what is not synced. In those of TestSessions devices speak MQTT, in those of TestPlaced their tenant
// goes to other partitions besides. Those of TestExpiring have devices
// whose sessions end (lifetimes.go). Those of TestRough (rough.go) have two tenants with the same
// client ids and topics, devices that unsubscribe, disks that lose what is not synced, brokers that
// leave for good, and plots (ploys.go) that bring about what one rule of the brokers is for.
//
// The promises, and who holds the brokers to them:
//
//   - What was acknowledged at QoS 1 and 2 comes, once at QoS 2, in order, to who subscribed before:
//     check.Messages. So does the will of a connection that was lost: check.Wills.
//   - A first delivery carries no DUP and a repeated one does; nothing comes twice at QoS 1 unless a
//     connection, a link or an owner on its way was lost: check.Messages, when it comes.
//   - Nothing comes after UNSUBACK, and nothing that another tenant has published: check.Messages.
//   - A session is there again, and a connection goes on where its partition, or its tenant, goes:
//     device.present, device.refused. It ends in time: device.mustBeOver. It has one connection: device.tookOver.
//   - The metadata are equal in the end, and each broker knows that all others know what it does, so that
//     nothing has to be kept for anybody: World.differing. The routes are those of the subscriptions:
//     World.astray.
//   - A partition has one owner under each epoch, epochs rise by one, an owner has all that was
//     acknowledged, and who joins the replicas in sync has a copy: check.History, World.joining.
//
// No checker of linearizability (porcupine) judges the partition table. In the worlds the bucket is one
// variable, and each request takes effect in one event between its call and its answer (bucket.request), also
// where the answer is lost: its history is linearizable however the brokers behave, so a checker would judge
// the world. That of the real bucket is a matter of infra/bus/bustest. What brokers make of it, where what they
// have read is old, is what may be wrong, and check.History sees that: two owners under one epoch,
// something that was acknowledged and that a later owner lacks, an epoch that is skipped or comes again.
//
// The routes of the worlds with sessions are the real routes.Routes over the real metadata.Machine
// of each node (meta.go), on the node's disk and over its links (voice.go). What these worlds do not show:
// spaces of the metadata other than the routes, a broker that is given up without having been drained, or
// comes back after it has left, an actor that is lower
// than an earlier one because a clock went back while the disk was lost, a link on which metadata wait
// behind other things, and a batch of the metadata that cannot be written. The world of package metadata
// has some of these.
//
// When a node is informed (partition.Config.Informed) is said in informed.go, which is to say what
// package broker does.
//
// That the faults happen is held by the tests: tally.go has what the worlds of each must have had.
//
// The package must not decide anything that a broker decides.
package sim
