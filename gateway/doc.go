// SPDX-License-Identifier: Apache-2.0

// Package gateway is the edge of the cloud: it terminates clients' connections
// and keeps nothing that must outlive them. It joins listeners, the connection
// machine of gateway/conn and the links of gateway/uplink.
//
// Goroutines: an event loop for each processor, which has the plain connections
// from CONNACK on, or while they wait for a broker; one a connection before that, and
// for those with TLS, PROXY or WebSocket; one a listener, one a link, one for all links,
// one sweeper for all timeouts, one for all that wait for a broker, one for the
// directory's changes. Nobody waits for a socket to take bytes, but a
// goroutine of loop.Socket while one that no loop has is behind. What the broker delivers is encoded on the broker's goroutine
// (Receive) and written by it (Flush), without a hand-over.
//
// Locks: a connection's mutex guards its outbound half, and is taken before
// the Socket's, a loop's, that of the list of dirty connections and that of those
// that wait for a broker. Nobody calls
// a broker while holding either; sockets are closed under it.
//
// It must not know services: the broker is what a link.Broker says.
package gateway
