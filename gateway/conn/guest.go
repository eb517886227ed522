// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"slices"

	"github.com/manormq/manor/infra/mqtt"
)

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

// guestMayNot is what a guest is told whose tenant has not the setting for what it asked,
// and that setting; limit for all others.
func guestMayNot(reasons []mqtt.ReasonCode, setting, limit string) (text, is string) {
	if !slices.Contains(reasons, mqtt.ImplementationSpecificError) {
		return "", limit
	}
	return "a guest session may not do that: the setting " + setting + " is off", setting
}
