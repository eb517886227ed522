// SPDX-License-Identifier: Apache-2.0

package packet

import (
	"errors"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/topic"
)

// Decoder decodes packets one after the other. The zero Decoder is ready. It
// belongs to one goroutine, but not to one connection.
type Decoder struct {
	// scratch holds the properties that had to be moved together.
	scratch []byte
}

// Reset ends the life of what was decoded since the last Reset, so that the
// Decoder can use its memory again.
func (d *Decoder) Reset() {
	if cap(d.scratch) > 64<<10 {
		d.scratch = nil
	}
	d.scratch = d.scratch[:0]
}

// Decode reads the packet at the front of b into p and returns its length; 0
// if b holds only a part of it. What p holds are views into b and into the
// Decoder: they live until b changes or Reset. PUBLISH and acknowledgements
// allocate nothing.
//
// v is the version that CONNECT has agreed; before that it is 0, and only
// CONNECT is accepted. A packet of more than maxSize bytes, header included, is
// refused with 0x95 as soon as its header is there; maxSize of 0 or less is no
// limit.
//
// An error is an *Error. With a reason of 0x99 (the payload is not the UTF-8
// that its format says) p and n are nevertheless complete, so that the one
// message can be refused. After a CONNECT that failed, p.Connect holds at
// least the Version, if that could be read; it is 0 otherwise.
func (d *Decoder) Decode(b []byte, v Version, maxSize int, p *Packet) (n int, err error) {
	if len(b) == 0 {
		return 0, nil
	}
	t, flags := Type(b[0]>>4), b[0]&15
	p.Type = t
	r := reader{typ: t}
	if t == CONNECT {
		p.Connect = &Connect{}
	}
	r.header(v, flags)
	if r.err != nil {
		return 0, r.err
	}
	size, m, state := varint(b[1:])
	switch state {
	case varintShort:
		return 0, nil
	case varintLong:
		return 0, &Error{Reason: mqtt.MalformedPacket, Type: t, Text: "the remaining length has more than four bytes"}
	case varintPadded:
		// 3.x does not forbid it, and small clients do it.
		if v == V5 {
			return 0, &Error{Reason: mqtt.MalformedPacket, Type: t, Text: "the remaining length has more bytes than it needs [MQTT-1.5.5-1]"}
		}
	}
	n = 1 + m + int(size)
	if maxSize > 0 && n > maxSize {
		return 0, &Error{Reason: mqtt.PacketTooLarge, Type: t, Text: "the packet is larger than the maximum packet size [MQTT-3.2.2-15]"}
	}
	if len(b) < n {
		return 0, nil
	}
	r.b = b[1+m : n : n]
	switch t {
	case CONNECT:
		r.connect(d, p.Connect)
		if p.Connect.Version == V5 && state == varintPadded {
			r.malformed("the remaining length has more bytes than it needs [MQTT-1.5.5-1]")
		}
	case CONNACK:
		p.Connack = &Connack{}
		r.connack(v, p.Connack)
	case PUBLISH:
		r.publish(d, v, flags, &p.Publish)
	case PUBACK, PUBREC, PUBREL, PUBCOMP:
		r.ack(v, &p.Ack)
	case SUBSCRIBE:
		p.Subscribe = &Subscribe{}
		r.subscribe(v, p.Subscribe)
	case SUBACK, UNSUBACK:
		p.Suback = &Suback{}
		r.suback(v, p.Suback)
	case UNSUBSCRIBE:
		p.Unsubscribe = &Unsubscribe{}
		r.unsubscribe(v, p.Unsubscribe)
	case PINGREQ, PINGRESP:
	case DISCONNECT:
		p.Disconnect = &Disconnect{}
		r.disconnect(v, p.Disconnect)
	case AUTH:
		p.Auth = &Auth{}
		r.auth(p.Auth)
	}
	if r.left() > 0 && (r.err == nil || r.err.Reason == mqtt.PayloadFormatInvalid) {
		r.err = &Error{Reason: mqtt.MalformedPacket, Type: t, Text: "bytes follow the last field"}
	}
	switch {
	case r.err == nil:
		return n, nil
	case r.err.Reason == mqtt.PayloadFormatInvalid && t == PUBLISH:
		return n, r.err
	}
	return 0, r.err
}

// header checks the first byte.
func (r *reader) header(v Version, flags byte) {
	if v == 0 && r.typ != CONNECT {
		if r.typ == 0 {
			r.malformed("packet type 0 is reserved")
		}
		r.protocol("the first packet is not CONNECT [MQTT-3.1.0-1]")
		return
	}
	want := byte(0)
	switch r.typ {
	case 0:
		r.malformed("packet type 0 is reserved")
		return
	case PUBLISH:
		if flags>>1&3 == 3 {
			r.malformed("QoS 3 [MQTT-3.3.1-4]")
		}
		if flags&0x0E == 0x08 && v != V31 {
			r.malformed("DUP is set at QoS 0 [MQTT-3.3.1-2]")
		}
		return
	case AUTH:
		if v != V5 {
			r.malformed("packet type 15 is reserved before MQTT 5")
			return
		}
	case PUBREL, SUBSCRIBE, UNSUBSCRIBE:
		want = 2
		if v == V31 {
			flags &^= 8 // 3.1 has DUP here
		}
	}
	if flags != want && v != V31 {
		r.malformed("a reserved flag in the header is wrong [MQTT-2.1.3-1]")
	}
}

func (r *reader) publish(d *Decoder, v Version, flags byte, p *Publish) {
	*p = Publish{SubscriptionIDs: p.SubscriptionIDs[:0]}
	m := &p.Message
	m.Retain, m.QoS, p.Dup = flags&1 != 0, mqtt.QoS(flags>>1&3), flags&8 != 0
	m.Topic = r.topicName()
	if m.QoS > 0 {
		p.PacketID = r.packetID()
	}
	format := false
	if v == V5 {
		var f forwarded
		for pr := r.properties(PUBLISH); pr.next(r); {
			switch pr.id {
			case topicAlias:
				p.TopicAlias, p.HasTopicAlias = uint16(pr.num), true
			case subscriptionID:
				p.SubscriptionIDs = append(p.SubscriptionIDs, pr.num)
			default:
				f.message(r, d, &pr, m, &format)
			}
		}
		m.Properties = f.props
	}
	if r.err == nil && len(m.Topic) == 0 && !p.HasTopicAlias { // §3.3.2.1
		r.protocol("the topic name is empty and there is no topic alias")
	}
	m.Payload = r.take(r.left())
	if format && r.err == nil && !utf8.Valid(m.Payload) {
		r.fail(mqtt.PayloadFormatInvalid, "the payload is not the UTF-8 that its format indicator says")
	}
}

// forwarded gathers the properties that are passed on: as one view while they
// stand together, else in the Decoder's scratch.
type forwarded struct {
	props []byte
	at    int // where in the packet the view ends
	moved bool
}

func (f *forwarded) add(r *reader, d *Decoder, raw []byte) {
	switch {
	case f.props == nil:
		f.props, f.at = raw, r.i
	case !f.moved && f.at == r.i-len(raw):
		// Both are views of r.b, one right behind the other.
		start := f.at - len(f.props)
		f.props, f.at = r.b[start:r.i:r.i], r.i
	default:
		start := len(d.scratch)
		if f.moved {
			start -= len(f.props) // it is the end of the scratch
		} else {
			d.scratch = append(d.scratch, f.props...)
			f.moved = true
		}
		d.scratch = append(d.scratch, raw...)
		f.props = d.scratch[start:len(d.scratch):len(d.scratch)]
	}
}

// message takes a property that PUBLISH and wills have in common.
func (f *forwarded) message(r *reader, d *Decoder, pr *propertyReader, m *mqtt.Message, format *bool) {
	switch pr.id {
	case messageExpiry:
		m.Expiry, m.HasExpiry = pr.num, true
		return
	case payloadFormat:
		*format = pr.num == 1
	case responseTopic:
		if topic.ValidateName(pr.data) != nil { // [MQTT-3.3.2-14]
			r.protocol("the response topic is not a topic name [MQTT-3.3.2-14]")
			return
		}
	}
	f.add(r, d, pr.raw)
}

func (r *reader) ack(v Version, p *Ack) {
	*p = Ack{PacketID: r.packetID()}
	if v != V5 || r.left() == 0 || r.err != nil {
		return
	}
	p.Reason = r.reason()
	if r.left() == 0 {
		return
	}
	var f forwarded
	for pr := r.properties(r.typ); pr.next(r); {
		switch pr.id {
		case reasonString:
			p.ReasonString = pr.data
		case userProperty:
			f.user(&pr)
		}
	}
	p.UserProperties = f.props
}

// user gathers user properties of packets that are not hot: it allocates when
// they do not stand together.
func (f *forwarded) user(pr *propertyReader) {
	if f.props == nil {
		f.props = pr.raw
		return
	}
	f.props = append(slices.Clip(f.props), pr.raw...)
}

// reason reads a Reason Code that is legal in the packet.
func (r *reader) reason() mqtt.ReasonCode {
	c := mqtt.ReasonCode(r.byte())
	if r.err == nil && !legalReason(r.typ, c) {
		r.protocol("the reason code is not one of this packet's")
	}
	return c
}

func (r *reader) subscribe(v Version, p *Subscribe) {
	p.PacketID = r.packetID()
	id := uint32(0)
	if v == V5 {
		var f forwarded
		for pr := r.properties(SUBSCRIBE); pr.next(r); {
			switch pr.id {
			case subscriptionID:
				id = pr.num
			case userProperty:
				f.user(&pr)
			}
		}
		p.UserProperties = f.props
	}
	if r.err == nil && r.left() == 0 {
		r.protocol("has no topic filter [MQTT-3.8.3-2]")
	}
	for r.err == nil && r.left() > 0 {
		filter, shared := r.filter()
		o := r.byte()
		if r.err != nil {
			return
		}
		if v == V31 {
			o &= 3
		}
		s := mqtt.Subscription{Filter: filter, QoS: mqtt.QoS(o & 3), ID: id}
		switch {
		case o&3 == 3 && v == V5: // §3.8.3.1
			r.protocol("the maximum QoS of a subscription is 3")
		case o&3 == 3:
			r.malformed("the QoS of a subscription is 3 [MQTT-3.8.3-4 of 3.1.1]")
		case v != V5 && o > 2:
			r.malformed("reserved bits of a subscription are set [MQTT-3.8.3-4 of 3.1.1]")
		case o>>6 != 0:
			r.malformed("reserved bits of the subscription options are set [MQTT-3.8.3-5]")
		case o>>4 == 3: // §3.8.3.1
			r.protocol("retain handling is 3")
		case o&4 != 0 && shared:
			r.protocol("no local is set on a shared subscription [MQTT-3.8.3-4]")
		}
		if v == V5 {
			s.NoLocal, s.RetainAsPublished, s.RetainHandling = o&4 != 0, o&8 != 0, mqtt.RetainHandling(o>>4&3)
		}
		p.Subscriptions = append(p.Subscriptions, s)
	}
}

func (r *reader) filter() (filter string, shared bool) {
	filter = r.string()
	if r.err != nil {
		return "", false
	}
	_, _, shared, err := topic.ParseShare(filter)
	if err != nil {
		reason := mqtt.TopicFilterInvalid
		errors.As(err, &reason)
		r.fail(reason, strings.TrimSuffix(err.Error(), ": "+reason.Error()))
	}
	return filter, shared
}

func (r *reader) unsubscribe(v Version, p *Unsubscribe) {
	p.PacketID = r.packetID()
	if v == V5 {
		p.UserProperties = r.userProperties()
	}
	if r.err == nil && r.left() == 0 {
		r.protocol("has no topic filter [MQTT-3.10.3-2]")
	}
	for r.err == nil && r.left() > 0 {
		filter, _ := r.filter()
		p.Filters = append(p.Filters, filter)
	}
}

// userProperties reads a block in which only user properties are legal.
func (r *reader) userProperties() []byte {
	var f forwarded
	for pr := r.properties(r.typ); pr.next(r); {
		f.user(&pr)
	}
	return f.props
}

func (r *reader) suback(v Version, p *Suback) {
	p.PacketID = r.packetID()
	if v == V5 {
		var f forwarded
		for pr := r.properties(r.typ); pr.next(r); {
			switch pr.id {
			case reasonString:
				p.ReasonString = string(pr.data)
			case userProperty:
				f.user(&pr)
			}
		}
		p.UserProperties = f.props
	}
	if r.typ == UNSUBACK && v != V5 {
		return
	}
	codes := r.take(r.left())
	if r.err == nil && len(codes) == 0 {
		r.protocol("there is no reason code")
	}
	p.Reasons = slices.Grow(p.Reasons, len(codes))
	for _, c := range codes {
		// 3.x reserves all failures but 0x80 [MQTT-3.9.3-2 of 3.1.1].
		if !legalReason(r.typ, mqtt.ReasonCode(c)) || v != V5 && c > 0x80 {
			r.protocol("the reason code is not one of this packet's")
			return
		}
		p.Reasons = append(p.Reasons, mqtt.ReasonCode(c))
	}
}

func (r *reader) disconnect(v Version, p *Disconnect) {
	if v != V5 || r.left() == 0 {
		return
	}
	p.Reason = r.reason()
	if r.left() == 0 {
		return
	}
	var f forwarded
	for pr := r.properties(DISCONNECT); pr.next(r); {
		switch pr.id {
		case sessionExpiry:
			p.SessionExpiry, p.HasSessionExpiry = pr.num, true
		case reasonString:
			p.ReasonString = string(pr.data)
		case serverReference:
			p.ServerReference = string(pr.data)
		case userProperty:
			f.user(&pr)
		}
	}
	p.UserProperties = f.props
}

func (r *reader) auth(p *Auth) {
	if r.left() == 0 {
		return
	}
	p.Reason = r.reason()
	if r.left() == 0 {
		return
	}
	var f forwarded
	data := false
	for pr := r.properties(AUTH); pr.next(r); {
		switch pr.id {
		case authMethod:
			p.Method, p.HasMethod = string(pr.data), true
		case authData:
			p.Data, data = pr.data, true
		case reasonString:
			p.ReasonString = string(pr.data)
		case userProperty:
			f.user(&pr)
		}
	}
	p.UserProperties = f.props
	if r.err == nil && data && !p.HasMethod { // §3.15.2.2.3
		r.protocol("there is authentication data without a method")
	}
}
