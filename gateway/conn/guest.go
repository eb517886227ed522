// SPDX-License-Identifier: Apache-2.0

package conn

// guestText is what a guest of MQTT 5 is told.
const guestText = "guest session: the session of this client cannot be reached now; this one is empty and ends when it can"

// Guest says that the session is a guest's, before the frame that opens it is taken: it
// ends with the connection, whatever the client asked for, which CONNACK tells.
func (c *Conn) Guest() {
	c.expiry.Store(0)
	if k := c.connack; k != nil {
		k.ReasonString = guestText
		k.SessionExpiry, k.HasSessionExpiry = 0, true // §3.2.2.3.2
	}
}
