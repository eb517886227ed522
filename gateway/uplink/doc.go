// SPDX-License-Identifier: Apache-2.0

// Package uplink keeps the links of a gateway to its broker: a pool of them,
// dialled again with growing pauses when they are lost, and for each the table
// of its channels. Pool.Run owns one goroutine a link. What a channel is, the
// package does not know: it is the type parameter T.
package uplink
