// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bufio"
	bin "encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// MalformedError is a packet that a server must not send.
type MalformedError struct {
	Kind      Kind
	Statement string // an identifier of 5.0, "" if none says it
	Why       string
	Bytes     []byte
}

func (m *MalformedError) Error() string {
	cite := ""
	if m.Statement != "" {
		cite = " [" + m.Statement + " of 5.0]"
	}
	return fmt.Sprintf("malformed %s: %s%s: % X", m.Kind, m.Why, cite, m.Bytes[:min(len(m.Bytes), 64)])
}

// most is the longest packet that is read; no script is sent a longer one.
const most = 4 << 20

// Read reads one packet. What follows it stays in r.
func Read(r *bufio.Reader, v Version) (*Packet, error) {
	first, err := r.ReadByte()
	if err != nil {
		return nil, err
	}
	head := []byte{first}
	length := 0
	for shift := 0; ; shift += 7 {
		b, err := r.ReadByte()
		if err != nil {
			return nil, unexpected(err)
		}
		head = append(head, b)
		length |= int(b&0x7F) << shift
		if b < 0x80 {
			break
		}
		if shift == 21 {
			return nil, &MalformedError{Kind(first >> 4), "", "the remaining length is longer than 4 bytes", head}
		}
	}
	if length > most {
		return nil, fmt.Errorf("a packet of %d bytes, at most %d are read", length, most)
	}
	n := len(head)
	head = append(head, make([]byte, length)...)
	if _, err := io.ReadFull(r, head[n:]); err != nil {
		return nil, unexpected(err)
	}
	return decode(head, n, v)
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("in the middle of a packet: %w", io.ErrUnexpectedEOF)
	}
	return err
}

// decoder takes fields off a body. After the first failure it yields zeros.
type decoder struct {
	b   []byte
	bad *MalformedError
}

func decode(all []byte, head int, v Version) (*Packet, error) {
	p := &Packet{Kind: Kind(all[0] >> 4), Size: len(all)}
	d := &decoder{b: all[head:]}
	if head > 2 && all[head-1] == 0 {
		d.fail("MQTT-1.5.5-1", "the remaining length takes more bytes than it needs")
	}
	flags := all[0] & 0x0F
	if p.Kind == Publish {
		d.publish(p, flags, v)
	} else {
		if v == V31 && p.Kind == Pubrel {
			flags &^= 8 // 3.1 sends it again with DUP
		}
		if want := p.Kind.flags(); flags != want {
			d.fail("MQTT-2.1.3-1", fmt.Sprintf("the flags of the fixed header are %04b, not %04b", flags, want))
		}
		d.rest(p, v)
	}
	if d.bad == nil && len(d.b) > 0 {
		d.fail("", fmt.Sprintf("%d bytes are left over", len(d.b)))
	}
	if d.bad != nil {
		d.bad.Kind, d.bad.Bytes = p.Kind, all
		return p, d.bad
	}
	return p, nil
}

func (d *decoder) publish(p *Packet, flags byte, v Version) {
	qos := flags >> 1 & 3
	switch {
	case qos == 3:
		d.fail("MQTT-3.3.1-4", "QoS 3")
	case qos == 0 && flags&8 != 0:
		d.fail("MQTT-3.3.1-2", "DUP at QoS 0")
	}
	p.number("dup", uint64(flags>>3))
	p.number("qos", uint64(qos))
	p.number("retain", uint64(flags&1))
	topic := d.text()
	if strings.ContainsAny(topic, "#+") {
		d.fail("MQTT-3.3.2-2", "a topic name with a wildcard")
	}
	p.add("topic", topic)
	if qos > 0 {
		d.identifier(p)
	}
	if v == V5 {
		d.properties(p)
		if p.Number("alias") == 0 && topic == "" {
			d.fail("MQTT-4.7.3-1", "no topic name and no topic alias")
		}
	}
	p.add("payload", string(d.b))
	d.b = nil
}

// rest decodes all but PUBLISH.
func (d *decoder) rest(p *Packet, v Version) {
	switch p.Kind {
	case Connack:
		flags := d.u8()
		if flags > 1 {
			d.fail("MQTT-3.2.2-1", "reserved flags are set")
		}
		if v != V31 {
			p.number("present", uint64(flags&1))
		}
		if v == V5 && len(d.b) == 1 && d.b[0] == 1 {
			// To a level that it does not know, a server may answer as 3.1.1 has it.
			v = V311
		}
		d.code(p, v)
		if v == V5 {
			d.properties(p)
		}
	case Puback, Pubrec, Pubrel, Pubcomp:
		d.identifier(p)
		if v == V5 && len(d.b) > 0 {
			d.code(p, v)
		} else if v == V5 {
			p.code(0)
		}
		if v == V5 && len(d.b) > 0 {
			d.properties(p)
		}
	case Suback, Unsuback:
		d.identifier(p)
		if v == V5 {
			d.properties(p)
		}
		for len(d.b) > 0 && (v == V5 || p.Kind == Suback) && d.bad == nil {
			d.code(p, v)
		}
	case Disconnect, Auth:
		if v != V5 {
			d.fail("", "a server of this version sends none")
			return
		}
		if len(d.b) > 0 {
			d.code(p, v)
		} else {
			p.code(0)
		}
		if len(d.b) > 0 {
			d.properties(p)
		}
	case Pingresp:
	default:
		d.fail("", "a server sends none")
	}
}

func (d *decoder) fail(statement, why string) {
	if d.bad == nil {
		d.bad = &MalformedError{Statement: statement, Why: why}
	}
}

func (d *decoder) take(n int) []byte {
	if n > len(d.b) {
		d.fail("", "it ends too early")
		d.b = nil
		return make([]byte, n)
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) u8() byte { return d.take(1)[0] }

func (d *decoder) u16() uint16 { return bin.BigEndian.Uint16(d.take(2)) }

func (d *decoder) identifier(p *Packet) {
	id := d.u16()
	if id == 0 {
		d.fail("MQTT-2.2.1-4", "packet identifier 0")
	}
	p.number("id", uint64(id))
}

// table is the statement that a code is of its table.
var table = map[Kind]string{
	Connack: "MQTT-3.2.2-8", Puback: "MQTT-3.4.2-1", Pubrec: "MQTT-3.5.2-1", Pubrel: "MQTT-3.6.2-1", Pubcomp: "MQTT-3.7.2-1",
	Suback: "MQTT-3.9.3-2", Unsuback: "MQTT-3.11.3-2", Disconnect: "MQTT-3.14.2-1", Auth: "MQTT-3.15.2-1",
}

func (d *decoder) code(p *Packet, v Version) {
	c := d.u8()
	p.code(c)
	allowed := reasons[p.Kind]
	switch {
	case v == V5:
	case p.Kind == Connack:
		allowed = "00 01 02 03 04 05"
	case v == V31:
		allowed = "00 01 02"
	default:
		allowed = "00 01 02 80"
	}
	if !strings.Contains(allowed, fmt.Sprintf("%02X", c)) {
		d.fail(table[p.Kind], fmt.Sprintf("code 0x%02X is not in its table", c))
	}
}

func (d *decoder) text() string {
	s := string(d.take(int(d.u16())))
	switch {
	case !utf8.ValidString(s):
		d.fail("MQTT-1.5.4-1", fmt.Sprintf("%q is not UTF-8", s))
	case strings.ContainsRune(s, 0):
		d.fail("MQTT-1.5.4-2", fmt.Sprintf("%q has U+0000", s))
	}
	return s
}

func (d *decoder) varint() uint64 {
	var n uint64
	for shift := 0; shift < 28; shift += 7 {
		b := d.u8()
		n |= uint64(b&0x7F) << shift
		if b < 0x80 {
			if b == 0 && shift > 0 {
				d.fail("MQTT-1.5.5-1", "a variable byte integer takes more bytes than it needs")
			}
			return n
		}
	}
	d.fail("", "a variable byte integer is longer than 4 bytes")
	return 0
}

func (d *decoder) properties(p *Packet) {
	n := int(d.varint())
	if n > len(d.b) {
		d.fail("", "the properties are longer than the packet")
		return
	}
	in := &decoder{b: d.b[:n], bad: d.bad}
	d.b = d.b[n:]
	for len(in.b) > 0 && in.bad == nil {
		in.property(p)
	}
	d.bad = in.bad
}

func (d *decoder) property(p *Packet) {
	id, place := d.varint(), uint32(1)<<p.Kind
	for _, prop := range properties {
		if uint64(prop.id) != id || prop.on&place == 0 {
			continue
		}
		if _, twice := p.Get(prop.name); twice && prop.many&place == 0 {
			d.fail("", prop.name+" stands twice")
		}
		switch prop.typ {
		case u8, flag:
			b := d.u8()
			if b > 1 {
				d.fail("", fmt.Sprintf("%s is %d, not 0 or 1", prop.name, b))
			}
			p.number(prop.name, uint64(b))
		case u16:
			p.number(prop.name, uint64(d.u16()))
		case u32:
			p.number(prop.name, uint64(bin.BigEndian.Uint32(d.take(4))))
		case varint:
			p.number(prop.name, d.varint())
		case text:
			p.add(prop.name, d.text())
		case pair:
			name := d.text()
			p.add(prop.name, name+":"+d.text())
		case binary, none:
			p.add(prop.name, string(d.take(int(d.u16()))))
		}
		d.check(p, prop.name)
		return
	}
	d.fail("", fmt.Sprintf("it must not have property 0x%02X", id))
}

// check looks at values that a server must not send.
func (d *decoder) check(p *Packet, name string) {
	value, _ := p.Get(name)
	switch {
	case (name == "receive" || name == "maxpacket" || name == "subid") && value == "0":
		d.fail("", name+" is 0")
	case name == "alias" && value == "0":
		d.fail("MQTT-3.3.2-8", "topic alias 0")
	case name == "response" && strings.ContainsAny(value, "#+"):
		d.fail("MQTT-3.3.2-14", "a response topic with a wildcard")
	case name == "session" && p.Kind == Disconnect:
		d.fail("MQTT-3.14.2-2", "a session expiry interval")
	}
}
