// SPDX-License-Identifier: Apache-2.0

// Package packet writes and reads the fifteen MQTT Control Packets in the
// encodings of MQTT 3.1, 3.1.1 and 5. Here the difference between the versions
// ends: reason codes are those of MQTT 5 on this side, whatever the wire says.
//
// Decoder.Decode reads from a slice that may hold half a packet, and what it
// yields are views into that slice. The Append functions write into the
// caller's buffer. Both directions are there for every packet, since gateways,
// bridges and load generators all speak through this package.
//
// The package owns no goroutine, reads no clock and does no I/O. It knows
// nothing of sessions: rules that need the state of a connection (topic
// aliases in use, receive maximum, grants) are gateway/conn's.
package packet
