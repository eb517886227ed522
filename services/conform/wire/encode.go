// SPDX-License-Identifier: Apache-2.0

package wire

import (
	bin "encoding/binary"
	"fmt"
	"strings"
)

// Append appends p as a client would send it. What the version does not have is
// an error, and so is a field that the packet cannot have; what it should not
// have is not.
func Append(dst []byte, v Version, p *Packet) ([]byte, error) {
	e := &encoder{p: p, v: v}
	first := byte(p.Kind)<<4 | p.Kind.flags()
	var body []byte
	switch p.Kind {
	case Connect:
		body = e.connect()
	case Publish:
		first |= e.bit("dup")<<3 | byte(p.Number("qos"))<<1 | e.bit("retain")
		body = e.publish()
	case Subscribe, Unsubscribe:
		body = e.filters()
	case Disconnect, Auth:
		if v == V5 && len(p.Fields) > 0 {
			body = append(body, byte(p.Number("code")))
			body = e.properties(body, "")
		}
	case Pingreq, Pingresp:
	case Connack:
		body = append(body, e.bit("present"), byte(p.Number("code")))
		body = e.properties(body, "")
	case Suback, Unsuback:
		body = e.properties(e.u16(body, "id"), "")
		for _, c := range p.All("code") {
			n, _ := Number(c)
			body = append(body, byte(n))
		}
	case Puback, Pubrec, Pubrel, Pubcomp:
		body = e.u16(body, "id")
		if v == V5 && len(p.Fields) > 1 {
			body = append(body, byte(p.Number("code")))
			body = e.properties(body, "")
		}
	}
	for _, f := range p.Fields {
		switch t, only5, ok := Of(p.Kind, f.Name); {
		case !ok:
			return nil, fmt.Errorf("%s has no field %s", p.Kind, f.Name)
		case only5 && v != V5:
			return nil, fmt.Errorf("%s of MQTT %s has no field %s", p.Kind, v, f.Name)
		case t.Numeric():
			if _, err := Number(f.Value); err != nil {
				return nil, fmt.Errorf("%s: %q is no number", f.Name, f.Value)
			}
		}
	}
	if f, ok := p.Get("flags"); ok {
		n, _ := Number(f)
		first = first&0xF0 | byte(n)&0x0F
	}
	dst = append(dst, first)
	dst = bin.AppendUvarint(dst, uint64(len(body)))
	return append(dst, body...), nil
}

type encoder struct {
	p *Packet
	v Version
}

func (e *encoder) bit(name string) byte { return byte(e.p.Number(name)) & 1 }

func (e *encoder) u16(dst []byte, name string) []byte {
	return bin.BigEndian.AppendUint16(dst, uint16(e.p.Number(name)))
}

// Text appends s behind its length in two bytes.
func Text(dst []byte, s string) []byte {
	return append(bin.BigEndian.AppendUint16(dst, uint16(len(s))), s...)
}

// Protocol is the name by which CONNECT calls a version.
func Protocol(v Version) string {
	if v == V31 {
		return "MQIsdp"
	}
	return "MQTT"
}

func (e *encoder) connect() []byte {
	name, ok := e.p.Get("protocol")
	if !ok {
		name = Protocol(e.v)
	}
	level := byte(e.v)
	if _, ok := e.p.Get("level"); ok {
		level = byte(e.p.Number("level"))
	}
	topic, hasWill := e.p.Get("will.topic")
	user, hasUser := e.p.Get("username")
	pass, hasPass := e.p.Get("password")
	flags := e.bit("clean")<<1 | byte(e.p.Number("will.qos"))<<3 | e.bit("will.retain")<<5
	for i, has := range []bool{hasWill, hasPass, hasUser} {
		if has {
			flags |= []byte{0x04, 0x40, 0x80}[i]
		}
	}
	body := append(Text(nil, name), level, flags)
	body = e.u16(body, "keepalive")
	body = e.properties(body, "")
	id, _ := e.p.Get("id")
	body = Text(body, id)
	if hasWill {
		body = e.properties(body, "will.")
		payload, _ := e.p.Get("will.payload")
		body = Text(Text(body, topic), payload)
	}
	if hasUser {
		body = Text(body, user)
	}
	if hasPass {
		body = Text(body, pass)
	}
	return body
}

func (e *encoder) publish() []byte {
	topic, _ := e.p.Get("topic")
	body := Text(nil, topic)
	if e.p.Number("qos") > 0 {
		body = e.u16(body, "id")
	}
	body = e.properties(body, "")
	payload, _ := e.p.Get("payload")
	return append(body, payload...)
}

func (e *encoder) filters() []byte {
	body := e.properties(e.u16(nil, "id"), "")
	last := -1 // where the options of the last filter are
	for _, f := range e.p.Fields {
		n, _ := Number(f.Value)
		bits := byte(n)
		switch f.Name {
		case "filter":
			body = Text(body, f.Value)
			if e.p.Kind == Subscribe {
				last = len(body)
				body = append(body, 0)
			}
			continue
		case "nolocal":
			bits <<= 2
		case "rap":
			bits <<= 3
		case "rh":
			bits <<= 4
		case "qos":
		default:
			continue
		}
		if last >= 0 {
			body[last] |= bits
		}
	}
	return body
}

// properties appends the properties whose field names begin with prefix, in
// their order, behind their length. 3.x has none.
func (e *encoder) properties(dst []byte, prefix string) []byte {
	if e.v != V5 {
		return dst
	}
	place := uint32(1) << e.p.Kind
	if prefix != "" {
		place = onWill
	}
	var b []byte
	for _, f := range e.p.Fields {
		name, ok := strings.CutPrefix(f.Name, prefix)
		if _, plain := known[e.p.Kind][f.Name]; plain || !ok {
			continue
		}
		for _, p := range properties {
			if p.name == name && p.on&place != 0 {
				b = appendValue(append(b, p.id), p.typ, f.Value)
			}
		}
	}
	return append(bin.AppendUvarint(dst, uint64(len(b))), b...)
}

func appendValue(dst []byte, t Type, value string) []byte {
	n, _ := Number(value)
	switch t {
	case u8, flag:
		return append(dst, byte(n))
	case u16:
		return bin.BigEndian.AppendUint16(dst, uint16(n))
	case u32:
		return bin.BigEndian.AppendUint32(dst, uint32(n))
	case varint:
		return bin.AppendUvarint(dst, n)
	case pair:
		name, value, _ := strings.Cut(value, ":")
		return Text(Text(dst, name), value)
	case text, binary, none:
	}
	return Text(dst, value)
}
