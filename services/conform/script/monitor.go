// SPDX-License-Identifier: Apache-2.0

package script

import (
	"fmt"

	"github.com/manormq/manor/services/conform/wire"
)

// monitor holds every packet of a connection to what is true whatever a script
// is about.
type monitor struct {
	connect  *wire.Packet
	connacks int
	accepted bool
	unacked  map[string]bool   // identifiers of PUBLISHes to the client under way
	aliases  map[string]string // topic names by topic alias
}

// sent notes what a client has told the server.
func (m *monitor) sent(p *wire.Packet) {
	id, _ := p.Get("id")
	switch p.Kind {
	case wire.Connect:
		if m.connect == nil {
			m.connect = p
		}
	case wire.Puback, wire.Pubcomp:
		delete(m.unacked, id)
	case wire.Pubrec:
		if p.Number("code") >= 0x80 {
			delete(m.unacked, id)
		}
	default:
	}
}

// received judges a packet. The numbers of statements are those of 5.0.
func (m *monitor) received(v wire.Version, p *wire.Packet) error {
	broken := func(statement, want string) error {
		return &mismatch{want: want, got: p.String(), statement: statement}
	}
	switch {
	case p.Kind == wire.Connack:
		m.connacks++
		if m.connacks > 1 {
			return broken("MQTT-3.2.0-2", "one CONNACK")
		}
		m.accepted = p.Number("code") == 0
		if p.Number("code") > 0 && p.Number("present") != 0 {
			return broken("MQTT-3.2.2-6", "session present 0 in a refusing CONNACK")
		}
		if _, ok := p.Get("responseinfo"); ok && m.asked("askresponse") == 0 {
			return broken("MQTT-3.1.2-28", "no response information, as none was asked for")
		}
	case p.Kind == wire.Auth && m.connect != nil:
		if _, ok := m.connect.Get("method"); !ok {
			return broken("MQTT-4.12.0-6", "no AUTH, as CONNECT has no authentication method")
		}
	case p.Kind == wire.Disconnect && !m.accepted:
		return broken("MQTT-3.14.0-1", "no DISCONNECT before CONNACK")
	case !m.accepted:
		return broken("MQTT-3.2.0-1", "CONNACK first")
	case p.Kind == wire.Publish:
		return m.published(p, broken)
	}
	if v != wire.V5 || m.connect == nil {
		return nil
	}
	return m.limits(p, broken)
}

// asked is a number that CONNECT has.
func (m *monitor) asked(name string) uint64 {
	if m.connect == nil {
		return 0
	}
	return m.connect.Number(name)
}

// limits holds p to what CONNECT allows.
func (m *monitor) limits(p *wire.Packet, broken func(statement, want string) error) error {
	if most := m.asked("maxpacket"); most > 0 && uint64(p.Size) > most {
		return broken("MQTT-3.1.2-24", fmt.Sprintf("at most %d bytes instead of %d", most, p.Size))
	}
	if most := m.asked("aliasmax"); p.Number("alias") > most {
		statement := "MQTT-3.1.2-26"
		if most == 0 {
			statement = "MQTT-3.1.2-27"
		}
		return broken(statement, fmt.Sprintf("no topic alias above %d", most))
	}
	if problem, ok := m.connect.Get("problem"); ok && problem == "0" && p.Kind != wire.Publish && p.Kind != wire.Connack && p.Kind != wire.Disconnect {
		_, reason := p.Get("reason")
		if _, user := p.Get("user"); user || reason {
			return broken("MQTT-3.1.2-29", "no reason string and no user property")
		}
	}
	return nil
}

// published looks at a PUBLISH: its identifier is free unless it is sent again,
// and no more are under way than the client allows.
func (m *monitor) published(p *wire.Packet, broken func(statement, want string) error) error {
	if id, ok := p.Get("id"); ok {
		if m.unacked == nil {
			m.unacked = map[string]bool{}
		}
		if m.unacked[id] && p.Number("dup") == 0 {
			return broken("MQTT-2.2.1-4", "a packet identifier that is free")
		}
		m.unacked[id] = true
		if most := m.asked("receive"); most > 0 && uint64(len(m.unacked)) > most {
			return broken("MQTT-3.3.4-9", fmt.Sprintf("at most %d messages that are not acknowledged", most))
		}
	}
	if err := m.unalias(p, broken); err != nil {
		return err
	}
	return m.limits(p, broken)
}

// unalias puts in the topic name that an alias stands for.
func (m *monitor) unalias(p *wire.Packet, broken func(statement, want string) error) error {
	alias, ok := p.Get("alias")
	if !ok {
		return nil
	}
	if m.aliases == nil {
		m.aliases = map[string]string{}
	}
	for i, f := range p.Fields {
		switch {
		case f.Name != "topic":
		case f.Value != "":
			m.aliases[alias] = f.Value
		case m.aliases[alias] == "":
			return broken("MQTT-3.3.2-7", "a topic alias that this connection has given a topic")
		default:
			p.Fields[i].Value = m.aliases[alias]
		}
	}
	return nil
}
