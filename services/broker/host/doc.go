// SPDX-License-Identifier: Apache-2.0

// Package host runs the replicas of a broker: it steps the machines of
// broker/partition and carries their Effects out on a store, on links and on the
// partition table, tells the heartbeat of this broker, listens to those of the
// others, and asks placement's Controller each second what should be where.
//
//	shard ──Append──▶ ┌──────┐ ──Write, Load──▶ disk ──▶ loader
//	      ◀───done─── │ loop │ ──Send─────────▶ Transport
//	      ◀──Change── └──────┘ ──Propose, ReadTable──▶ Table
//	 events ─post──▶ (mailbox)
//
// A Host owns these goroutines, all of which end with Run:
//
//   - the loop, which alone touches replicas, the Watch and the Controller, and runs
//     whatever was posted to its mailbox, a turn at a time;
//   - the disk, which writes what the turns gave it in groups, each group one batch over
//     all partitions: that of a replica in its order, and wipes when nothing else waits;
//   - the loader, which reads what followers lack, no faster than Config.CatchUp;
//   - the reader, which answers all waiting reads of the table with one fresh look;
//   - one for each proposal on its way, callsMost of which speak at once;
//   - the beat, and the watches of the table and of the beats.
//
// It is read in this order: host.go (what others call), loop.go (effects),
// append.go, disk.go, sync.go, loader.go, table.go, calls.go, beats.go, cede.go (planned moves).
//
// The package must not know what the batches say, nor sessions, messages and
// gateways; nor how links are made: a Transport carries its bytes.
package host
