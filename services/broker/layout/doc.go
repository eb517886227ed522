// SPDX-License-Identifier: Apache-2.0

// Package layout is what the replicated metadata has of where things belong: the
// label and the number of replicas of each partition, the cell of each tenant, which
// is the list of its partitions, and the settings of the cluster (docs/adr/0031 and
// 0032).
//
// A cell is drawn from the partitions that are not reserved, which is the same list
// on every broker for ever, so that brokers that draw at the same time have written
// the same. An operator's record has a higher revision than a drawn one. What is read
// here may be older than what another broker reads; nothing here is safe because it
// is new.
//
// The package owns no goroutine. It must not know how a partition is moved, nor
// sessions.
package layout
