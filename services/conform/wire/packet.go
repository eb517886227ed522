// SPDX-License-Identifier: Apache-2.0

// Package wire is a codec of MQTT 3.1, 3.1.1 and 5.0 for tests: packets are
// fields with names and text, the same for every version, so that a script can
// say what it sends and what it expects. It is written from the specifications
// and shares nothing with the product's codec, which it therefore checks. It
// encodes whatever it is told, wrong values too; it decodes what servers send
// and forgives them nothing. It owns no goroutine.
package wire

import (
	"fmt"
	"strconv"
	"strings"
)

// Version is a protocol level.
type Version byte

// The versions.
const (
	V31  Version = 3
	V311 Version = 4
	V5   Version = 5
)

func (v Version) String() string {
	switch v {
	case V31:
		return "3.1"
	case V311:
		return "3.1.1"
	case V5:
		return "5"
	}
	return "level " + strconv.Itoa(int(v))
}

// Kind is the upper half of a packet's first byte.
type Kind byte

// The kinds of packets.
const (
	Connect Kind = iota + 1
	Connack
	Publish
	Puback
	Pubrec
	Pubrel
	Pubcomp
	Subscribe
	Suback
	Unsubscribe
	Unsuback
	Pingreq
	Pingresp
	Disconnect
	Auth
)

var kinds = [16]string{
	"", "connect", "connack", "publish", "puback", "pubrec", "pubrel", "pubcomp",
	"subscribe", "suback", "unsubscribe", "unsuback", "pingreq", "pingresp", "disconnect", "auth",
}

func (k Kind) String() string { return kinds[k&15] }

// KindOf returns the kind of that name, 0 if there is none.
func KindOf(name string) Kind {
	for k, n := range kinds {
		if n == name && n != "" {
			return Kind(k)
		}
	}
	return 0
}

// flags are the lower half of the first byte, where it is not the sender's
// choice.
func (k Kind) flags() byte {
	if k == Pubrel || k == Subscribe || k == Unsubscribe {
		return 2
	}
	return 0
}

// Field is a part of a packet. Numbers are decimal or 0x and hexadecimal, flags
// are 0 or 1, everything else is its own bytes. A user property is its name, a
// colon and its value.
type Field struct{ Name, Value string }

// Packet is a packet. The fields of a subscription follow the one that is called
// filter; fields of the will begin with "will.".
type Packet struct {
	Kind   Kind
	Fields []Field
	Size   int // on the wire, if it was decoded
}

// Get returns the first field of that name.
func (p *Packet) Get(name string) (string, bool) {
	for _, f := range p.Fields {
		if f.Name == name {
			return f.Value, true
		}
	}
	return "", false
}

// All returns the values of the fields of that name.
func (p *Packet) All(name string) (all []string) {
	for _, f := range p.Fields {
		if f.Name == name {
			all = append(all, f.Value)
		}
	}
	return all
}

// Number returns the first field of that name as a number, 0 if there is none.
func (p *Packet) Number(name string) uint64 {
	v, _ := p.Get(name)
	n, _ := Number(v)
	return n
}

func (p *Packet) add(name, value string) { p.Fields = append(p.Fields, Field{name, value}) }

func (p *Packet) number(name string, n uint64) { p.add(name, strconv.FormatUint(n, 10)) }

func (p *Packet) code(c byte) { p.add("code", fmt.Sprintf("0x%02X", c)) }

// Number reads a number as scripts write it.
func Number(s string) (uint64, error) {
	if hex, ok := strings.CutPrefix(s, "0x"); ok {
		return strconv.ParseUint(hex, 16, 64)
	}
	return strconv.ParseUint(s, 10, 64)
}

// String writes p as a script would, in one line.
func (p *Packet) String() string {
	var b strings.Builder
	b.WriteString(p.Kind.String())
	for _, f := range p.Fields {
		if f.Value == "0" && typeOf(p.Kind, f.Name) == flag {
			continue
		}
		b.WriteByte(' ')
		b.WriteString(f.Name)
		b.WriteByte('=')
		b.WriteString(Quote(f.Value))
	}
	return b.String()
}

// Quote writes a value as scripts do: in quotes if it could be read otherwise,
// and cut if it is long.
func Quote(s string) string {
	const most = 80
	cut := ""
	if len(s) > most {
		cut = fmt.Sprintf("…(%d bytes)", len(s))
		s = s[:most]
	}
	plain := s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r == '"' || r == '~' || r >= 0x7F
	})
	if !plain {
		s = strconv.Quote(s)
	}
	return s + cut
}
