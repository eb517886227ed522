// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"bytes"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
)

// Auth is what a client says in an enhanced authentication [MQTT-4.12]. The
// shell has the exchange; the machine has the rules of the packets.
type Auth struct {
	// Came is set if it says something.
	Came bool
	// Again is set when it authenticates again on a live connection, and this is
	// how it begins.
	Again bool
	// Data is the Authentication Data, in memory of its own.
	Data []byte
}

// auth takes an AUTH of an accepted client [MQTT-4.12.1-1].
func (c *Conn) auth(p *packet.Auth, fx *Effects) {
	if c.method == nil {
		fx.close(mqtt.ProtocolError, "AUTH without an authentication method in CONNECT [MQTT-4.12.0-7]")
		return
	}
	if a, r := c.authOf(p); r.Reason.Failed() {
		fx.close(r.Reason, r.Text)
	} else {
		fx.Auth = a
	}
}

func (c *Conn) authOf(p *packet.Auth) (Auth, Refusal) {
	switch {
	case !p.HasMethod || p.Method != c.Method():
		return Auth{}, Refusal{Reason: mqtt.ProtocolError, Text: "AUTH has another authentication method than CONNECT [MQTT-4.12.0-5]"}
	case p.Reason == mqtt.Success: // [MQTT-3.15.2-1]
		return Auth{}, Refusal{Reason: mqtt.ProtocolError, Text: "AUTH with the reason success is the server's [MQTT-3.15.2-1]"}
	}
	return Auth{Came: true, Again: p.Reason == mqtt.ReAuthenticate, Data: bytes.Clone(p.Data)}, Refusal{}
}

// Authenticating takes a packet that comes before CONNACK, of a client whose
// exchange is under way: AUTH 0x18, or DISCONNECT, which ends it. Nothing else
// may come.
func (c *Conn) Authenticating(p *packet.Packet) (Auth, Close, Refusal) {
	switch p.Type {
	case packet.AUTH:
		a, r := c.authOf(p.Auth)
		if !r.Reason.Failed() && a.Again {
			r = Refusal{Reason: mqtt.ProtocolError, Text: "AUTH begins again before CONNACK"}
		}
		return a, Close{}, r
	case packet.DISCONNECT:
		cl := ended(0, p.Disconnect.Reason, p.Disconnect.ReasonString)
		cl.ByClient = true
		return Auth{}, cl, Refusal{}
	default:
		return Auth{}, Close{}, Refusal{Reason: mqtt.ProtocolError, Text: "between CONNECT and CONNACK only AUTH and DISCONNECT may come, found " + p.Type.String()}
	}
}

// Method is the Authentication Method of CONNECT; empty if it had none.
func (c *Conn) Method() string {
	if c.method == nil {
		return ""
	}
	return *c.method
}

// Challenge appends the server's AUTH: 0x18 while it wants to hear more
// [MQTT-4.12.0-2], 0x00 when a client has authenticated again.
func (c *Conn) Challenge(dst []byte, reason mqtt.ReasonCode, data []byte) []byte {
	return packet.AppendAuth(dst, &packet.Auth{Reason: reason, Method: c.Method(), HasMethod: true, Data: data}, int(c.limit))
}

// Authenticated has CONNACK name the method, with the last of the server's data
// [MQTT-4.12.0-5] [MQTT-4.12.0-6].
func (c *Conn) Authenticated(data []byte) {
	if c.connack != nil {
		c.connack.AuthMethod, c.connack.AuthData = c.Method(), data
	}
}
