// SPDX-License-Identifier: Apache-2.0

// Package listener accepts network connections: TCP, TLS with the tenant by
// SNI, WebSocket with the tenant by Host, each with or without the PROXY
// protocol in front. It hands over connections whose writes do not block
// (Socket) and says as much about the tenant as the network told.
//
// Each listener owns one accepting goroutine, and one goroutine a connection,
// on which it calls Options.Handle and which ends when an event loop takes the
// connection over (Socket.Move). It must not know MQTT packets.
package listener
