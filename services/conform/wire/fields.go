// SPDX-License-Identifier: Apache-2.0

package wire

import "strings"

// Type is what a field holds.
type Type byte

// The types of fields.
const (
	none Type = iota
	flag
	u8
	u16
	u32
	varint
	text
	binary
	pair // a user property
)

// Numeric reports whether a field of this type is a number.
func (t Type) Numeric() bool { return t >= flag && t <= varint }

// property is a property of MQTT 5.0. on names the packets that may have it, by
// bits; many may have it more than once.
type property struct {
	id   byte
	name string
	typ  Type
	on   uint32
	many uint32
}

const (
	onConnect  = 1 << Connect
	onConnack  = 1 << Connack
	onPublish  = 1 << Publish
	onSub      = 1 << Subscribe
	onAuth     = 1 << Auth
	onEnd      = 1 << Disconnect
	onWill     = 1 << 16 // the will of CONNECT
	onEvery    = 0x1FFFF &^ 1 &^ (1 << Pingreq) &^ (1 << Pingresp)
	onAnswers  = onEvery &^ onConnect &^ onPublish &^ onSub &^ (1 << Unsubscribe) &^ onWill
	onMessages = onPublish | onWill
)

// properties is section 2.2.2.2, with the names that scripts use.
var properties = []property{
	{1, "format", u8, onMessages, 0},
	{2, "expiry", u32, onMessages, 0},
	{3, "content", text, onMessages, 0},
	{8, "response", text, onMessages, 0},
	{9, "correlation", binary, onMessages, 0},
	{11, "subid", varint, onPublish | onSub, onPublish},
	{17, "session", u32, onConnect | onConnack | onEnd, 0},
	{18, "assigned", text, onConnack, 0},
	{19, "serverkeepalive", u16, onConnack, 0},
	{21, "method", text, onConnect | onConnack | onAuth, 0},
	{22, "data", binary, onConnect | onConnack | onAuth, 0},
	{23, "problem", u8, onConnect, 0},
	{24, "delay", u32, onWill, 0},
	{25, "askresponse", u8, onConnect, 0},
	{26, "responseinfo", text, onConnack, 0},
	{28, "server", text, onConnack | onEnd, 0},
	{31, "reason", text, onAnswers, 0},
	{33, "receive", u16, onConnect | onConnack, 0},
	{34, "aliasmax", u16, onConnect | onConnack, 0},
	{35, "alias", u16, onPublish, 0},
	{36, "maxqos", u8, onConnack, 0},
	{37, "retainavailable", u8, onConnack, 0},
	{38, "user", pair, onEvery, onEvery},
	{39, "maxpacket", u32, onConnect | onConnack, 0},
	{40, "wildcardavailable", u8, onConnack, 0},
	{41, "subidavailable", u8, onConnack, 0},
	{42, "sharedavailable", u8, onConnack, 0},
}

// known are the fields of each kind that are not properties.
var known = map[Kind]map[string]Type{
	Connect: {
		"protocol": text, "level": u8, "clean": flag, "keepalive": u16, "id": text, "username": text, "password": binary,
		"will.topic": text, "will.payload": binary, "will.qos": u8, "will.retain": flag,
	},
	Connack:     {"present": flag, "code": u8},
	Publish:     {"dup": flag, "qos": u8, "retain": flag, "topic": text, "id": u16, "payload": binary},
	Puback:      {"id": u16, "code": u8},
	Pubrec:      {"id": u16, "code": u8},
	Pubrel:      {"id": u16, "code": u8},
	Pubcomp:     {"id": u16, "code": u8},
	Subscribe:   {"id": u16, "filter": text, "qos": u8, "nolocal": flag, "rap": flag, "rh": u8},
	Suback:      {"id": u16, "code": u8},
	Unsubscribe: {"id": u16, "filter": text},
	Unsuback:    {"id": u16, "code": u8},
	Pingreq:     {},
	Pingresp:    {},
	Disconnect:  {"code": u8},
	Auth:        {"code": u8},
}

// reasons are the codes that the tables of section 3 allow, by kind; what a
// client alone may send is not among them.
var reasons = map[Kind]string{
	Connack:    "00 80 81 82 83 84 85 86 87 88 89 8A 8C 90 95 97 99 9A 9B 9C 9D 9F",
	Puback:     "00 10 80 83 87 90 91 97 99",
	Pubrec:     "00 10 80 83 87 90 91 97 99",
	Pubrel:     "00 92",
	Pubcomp:    "00 92",
	Suback:     "00 01 02 80 83 87 8F 91 97 9E A1 A2",
	Unsuback:   "00 11 80 83 87 8F 91",
	Disconnect: "00 80 81 82 83 87 89 8B 8D 8E 8F 90 93 94 95 96 97 98 99 9A 9B 9C 9D 9E 9F A0 A1 A2",
	Auth:       "00 18",
}

// Of returns the type of a field, and whether only 5.0 has it; ok is false if
// that kind of packet has no such field.
func Of(k Kind, name string) (t Type, only5, ok bool) {
	if name == "flags" { // of the fixed header, on every packet
		return u8, false, true
	}
	if t, ok := known[k][name]; ok {
		newer := name == "nolocal" || name == "rap" || name == "rh" || name == "code" && (k == Disconnect || k >= Puback && k <= Pubcomp)
		return t, newer, true
	}
	place, bare := uint32(1)<<k, name
	if will, ok := strings.CutPrefix(name, "will."); ok && k == Connect {
		place, bare = onWill, will
	}
	for _, p := range properties {
		if p.name == bare && p.on&place != 0 {
			return p.typ, true, true
		}
	}
	return none, false, false
}

func typeOf(k Kind, name string) Type {
	t, _, _ := Of(k, name)
	return t
}
