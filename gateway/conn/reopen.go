// SPDX-License-Identifier: Apache-2.0

package conn

// A connection may go on on another channel, at another broker. All that the client knows
// stays as it is: aliases, what it may have unacknowledged, what it was told.

// Reopen returns what the broker of the new channel is granted at first, while backlog
// bytes wait for the socket and Delivers of held bytes, as link.DeliverCost counts them, came
// on the old channel and are given to Receive, or to Skip, later: before any of the new one,
// which they are no part of. Nothing else comes on the old channel. Like Receive it belongs to
// the outbound half.
func (c *Conn) Reopen(backlog, held int) (credit uint64) {
	c.delivered, c.early = 0, uint64(held)
	c.granted = max(c.creditWindow-min(c.creditWindow, uint64(backlog)), smallestCredit)
	c.granted -= min(c.granted, c.early)
	return c.granted
}

// Reopened says that the new channel is open with that window of the broker's. The
// inbound half must not be running.
func (c *Conn) Reopened(window uint64) {
	c.sent = 0
	c.window.Store(window)
}
