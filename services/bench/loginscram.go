// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/xdg-go/scram"
)

// The parts of MQTT 5 that SCRAM-SHA-256 needs (§3.1.2.11.9, §3.15).
const (
	pktAuth        = 0xF0
	propAuthMethod = 0x15
	propAuthData   = 0x16
	scramMethod    = "SCRAM-SHA-256"
	continueAuth   = 0x18
)

// cutTenant cuts TENANT:NAME.
func cutTenant(user string) (tenant, name string, ok bool) { return strings.Cut(user, ":") }

// appendAuthProperties appends the properties Authentication Method and Data, with their
// length.
func appendAuthProperties(b []byte, data string) []byte {
	p := appendString([]byte{propAuthMethod}, scramMethod)
	p = appendString(append(p, propAuthData), data)
	return append(appendLength(b, len(p)), p...)
}

// openSCRAM connects client i by SCRAM-SHA-256. talks may be used by several at once, and
// derives its keys from the password once.
func (o *Options) openSCRAM(i int, id string, talks *scram.Client) (c *client, err error) {
	nc, err := o.dial(i)
	if err != nil {
		return nil, err
	}
	c = &client{Conn: nc, protocol: mqtt5, buf: make([]byte, 512)}
	defer func() {
		if err != nil {
			_ = nc.Close()
		}
	}()
	_ = nc.SetDeadline(time.Now().Add(30 * time.Second))
	talk := talks.NewConversation()
	first, err := talk.Step("")
	if err != nil {
		return nil, err
	}
	body := binary.BigEndian.AppendUint16(append(appendString(nil, "MQTT"), byte(mqtt5), 0x02), uint16(o.KeepAlive))
	body = appendString(appendAuthProperties(body, first), id)
	if _, err := nc.Write(append(appendLength([]byte{pktConnect}, len(body)), body...)); err != nil {
		return nil, err
	}
	f, b, err := c.next()
	if err != nil {
		return nil, fmt.Errorf("wait for AUTH: %w", err)
	}
	if f != pktAuth || len(b) < 2 || b[0] != continueAuth {
		return nil, errors.Join(errors.New("expected AUTH with the server's first message"), c.refused(f, b))
	}
	next, err := talk.Step(authData(b[1:]))
	if err != nil {
		return nil, err
	}
	body = appendAuthProperties([]byte{continueAuth}, next)
	if _, err := nc.Write(append(appendLength([]byte{pktAuth}, len(body)), body...)); err != nil {
		return nil, err
	}
	if f, b, err = c.next(); err != nil {
		return nil, fmt.Errorf("wait for CONNACK: %w", err)
	}
	return c, c.refused(f, b)
}

// authData is the property Authentication Data of properties that begin with the
// Authentication Method, as a server's AUTH does; empty if they do not.
func authData(b []byte) string {
	_, n := binary.Uvarint(b)
	if n <= 0 {
		return ""
	}
	for b = b[n:]; len(b) >= 3; {
		size := 3 + int(binary.BigEndian.Uint16(b[1:]))
		if size > len(b) || b[0] != propAuthMethod && b[0] != propAuthData {
			return ""
		}
		if b[0] == propAuthData {
			return string(b[3:size])
		}
		b = b[size:]
	}
	return ""
}
