// SPDX-License-Identifier: Apache-2.0

// Package uplink keeps the links of a gateway to the brokers of its region: for
// each broker of the partition table a pool of links, dialled again with growing
// pauses when they are lost, and for each link the table of its channels. Pool.Run
// owns one goroutine a link, Brokers.Run one more. What a channel is, the package
// does not know: it is the type parameter T.
package uplink
