// SPDX-License-Identifier: Apache-2.0

package packet

// propertyID is a property's identifier [MQTT-2.2.2.2].
type propertyID uint8

const (
	payloadFormat           propertyID = 0x01
	messageExpiry           propertyID = 0x02
	contentType             propertyID = 0x03
	responseTopic           propertyID = 0x08
	correlationData         propertyID = 0x09
	subscriptionID          propertyID = 0x0B
	sessionExpiry           propertyID = 0x11
	assignedClientID        propertyID = 0x12
	serverKeepAlive         propertyID = 0x13
	authMethod              propertyID = 0x15
	authData                propertyID = 0x16
	requestProblem          propertyID = 0x17
	willDelay               propertyID = 0x18
	requestResponse         propertyID = 0x19
	responseInformation     propertyID = 0x1A
	serverReference         propertyID = 0x1C
	reasonString            propertyID = 0x1F
	receiveMaximum          propertyID = 0x21
	topicAliasMaximum       propertyID = 0x22
	topicAlias              propertyID = 0x23
	maximumQoS              propertyID = 0x24
	retainAvailable         propertyID = 0x25
	userProperty            propertyID = 0x26
	maximumPacketSize       propertyID = 0x27
	wildcardAvailable       propertyID = 0x28
	subscriptionIDAvailable propertyID = 0x29
	sharedAvailable         propertyID = 0x2A
)

type propertyKind uint8

const (
	kindBool   propertyKind = iota + 1 // a byte that is 0 or 1
	kindUint16                         // two byte integer
	kindUint32                         // four byte integer
	kindVarint                         // variable byte integer
	kindBinary                         // binary data
	kindString                         // UTF-8 string
	kindPair                           // UTF-8 string pair
)

// will is the place of the will properties in a legality mask: type 0 is not
// used by packets.
const will Type = 0

// in is a set of packet types.
func in(types ...Type) (mask uint16) {
	for _, t := range types {
		mask |= 1 << t
	}
	return mask
}

type property struct {
	name     string
	kind     propertyKind
	in       uint16 // where it is legal
	nonzero  bool   // 0 is a Protocol Error
	repeated uint16 // where it may stand more than once
}

var all = in(CONNECT, CONNACK, PUBLISH, will, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, DISCONNECT, AUTH)

// properties is table 2-4 of MQTT 5.
var properties = [...]property{
	payloadFormat:           {name: "Payload Format Indicator", kind: kindBool, in: in(PUBLISH, will)},
	messageExpiry:           {name: "Message Expiry Interval", kind: kindUint32, in: in(PUBLISH, will)},
	contentType:             {name: "Content Type", kind: kindString, in: in(PUBLISH, will)},
	responseTopic:           {name: "Response Topic", kind: kindString, in: in(PUBLISH, will)},
	correlationData:         {name: "Correlation Data", kind: kindBinary, in: in(PUBLISH, will)},
	subscriptionID:          {name: "Subscription Identifier", kind: kindVarint, in: in(PUBLISH, SUBSCRIBE), nonzero: true, repeated: in(PUBLISH)},
	sessionExpiry:           {name: "Session Expiry Interval", kind: kindUint32, in: in(CONNECT, CONNACK, DISCONNECT)},
	assignedClientID:        {name: "Assigned Client Identifier", kind: kindString, in: in(CONNACK)},
	serverKeepAlive:         {name: "Server Keep Alive", kind: kindUint16, in: in(CONNACK)},
	authMethod:              {name: "Authentication Method", kind: kindString, in: in(CONNECT, CONNACK, AUTH)},
	authData:                {name: "Authentication Data", kind: kindBinary, in: in(CONNECT, CONNACK, AUTH)},
	requestProblem:          {name: "Request Problem Information", kind: kindBool, in: in(CONNECT)},
	willDelay:               {name: "Will Delay Interval", kind: kindUint32, in: in(will)},
	requestResponse:         {name: "Request Response Information", kind: kindBool, in: in(CONNECT)},
	responseInformation:     {name: "Response Information", kind: kindString, in: in(CONNACK)},
	serverReference:         {name: "Server Reference", kind: kindString, in: in(CONNACK, DISCONNECT)},
	reasonString:            {name: "Reason String", kind: kindString, in: in(CONNACK, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK, DISCONNECT, AUTH)},
	receiveMaximum:          {name: "Receive Maximum", kind: kindUint16, in: in(CONNECT, CONNACK), nonzero: true},
	topicAliasMaximum:       {name: "Topic Alias Maximum", kind: kindUint16, in: in(CONNECT, CONNACK)},
	topicAlias:              {name: "Topic Alias", kind: kindUint16, in: in(PUBLISH)},
	maximumQoS:              {name: "Maximum QoS", kind: kindBool, in: in(CONNACK)},
	retainAvailable:         {name: "Retain Available", kind: kindBool, in: in(CONNACK)},
	userProperty:            {name: "User Property", kind: kindPair, in: all, repeated: all},
	maximumPacketSize:       {name: "Maximum Packet Size", kind: kindUint32, in: in(CONNECT, CONNACK), nonzero: true},
	wildcardAvailable:       {name: "Wildcard Subscription Available", kind: kindBool, in: in(CONNACK)},
	subscriptionIDAvailable: {name: "Subscription Identifier Available", kind: kindBool, in: in(CONNACK)},
	sharedAvailable:         {name: "Shared Subscription Available", kind: kindBool, in: in(CONNACK)},
}

// A propertyReader walks a block of properties:
//
//	for p := r.properties(t); p.next(r); { switch p.id { … } }
type propertyReader struct {
	where Type // a packet type, or will
	end   int  // where the block ends
	seen  uint64

	id   propertyID
	num  uint32 // the value of numbers
	data []byte // the value of strings and binary data
	raw  []byte // the property with its identifier
}

// properties begins a block: its length, which must fit in what is left.
func (r *reader) properties(where Type) propertyReader {
	n := int(r.varint())
	if r.err == nil && n > len(r.b)-r.i {
		r.malformed("the properties are longer than the packet")
	}
	if r.err != nil {
		return propertyReader{}
	}
	return propertyReader{where: where, end: r.i + n}
}

// next reads one property. It is false at the end of the block and after an
// error.
func (p *propertyReader) next(r *reader) bool {
	if r.err != nil || r.i >= p.end {
		return false
	}
	packet := r.b
	r.b = r.b[:p.end]
	start := r.i
	p.read(r)
	r.b = packet
	if r.err != nil {
		return false
	}
	p.raw = packet[start:r.i:r.i]
	return true
}

func (p *propertyReader) read(r *reader) {
	id := r.varint()
	if r.err != nil {
		return
	}
	if id >= uint32(len(properties)) || properties[id].kind == 0 { // §2.2.2.2
		r.malformed("there is no such property")
		return
	}
	d := &properties[id]
	p.id = propertyID(id)
	if d.in&(1<<p.where) == 0 { // §2.2.2.2
		r.malformed(d.name + " is not a property of this packet")
		return
	}
	if p.seen&(1<<id) != 0 && d.repeated&(1<<p.where) == 0 {
		r.protocol(d.name + " stands twice")
		return
	}
	p.seen |= 1 << id
	switch d.kind {
	case kindBool:
		if p.num = uint32(r.byte()); p.num > 1 {
			r.protocol(d.name + " is neither 0 nor 1")
		}
	case kindUint16:
		p.num = uint32(r.uint16())
	case kindUint32:
		p.num = r.uint32()
	case kindVarint:
		p.num = r.varint()
	case kindBinary:
		p.data = r.binary()
	case kindString:
		p.data = r.utf8()
	case kindPair:
		r.utf8()
		r.utf8()
	}
	if d.nonzero && p.num == 0 && r.err == nil {
		r.protocol(d.name + " is 0")
	}
}
