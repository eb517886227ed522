// SPDX-License-Identifier: Apache-2.0

package packet

import (
	"encoding/binary"

	"github.com/manormq/manor/infra/mqtt"
)

// What is appended must fit MQTT: strings and binary data of at most 65,535
// bytes, packets of at most 268,435,455. Longer reason strings are cut, other
// overlong fields are the caller's error and are cut too, so that a packet is
// never out of frame.
//
// limit is the receiver's Maximum Packet Size in bytes, 0 for none. To fit, a
// packet first loses its user properties and then its reason string
// [MQTT-3.2.2-19, -20 and the same for the others]; if that is not enough,
// nothing is appended.

// AppendConnect appends a CONNECT packet.
func AppendConnect(dst []byte, p *Connect) []byte {
	v := p.Version
	dst, start := begin(dst, CONNECT, 0)
	level := byte(v)
	if p.Bridge {
		level |= 0x80
	}
	if v == V31 {
		dst = appendString(dst, "MQIsdp")
	} else {
		dst = appendString(dst, "MQTT")
	}
	flags := bit(p.CleanStart, flagCleanStart) | bit(p.HasUsername, flagUsername) | bit(p.HasPassword, flagPassword)
	if p.Will != nil {
		flags |= flagWill | byte(p.Will.Message.QoS)<<3 | bit(p.Will.Message.Retain, flagWillRetain)
	}
	dst = append(dst, level, flags)
	dst = binary.BigEndian.AppendUint16(dst, p.KeepAlive)
	if v == V5 {
		var at int
		dst, at = beginProperties(dst)
		if p.HasSessionExpiry {
			dst = appendProperty32(dst, sessionExpiry, p.SessionExpiry)
		}
		dst = appendNonzero16(dst, receiveMaximum, p.ReceiveMaximum)
		dst = appendNonzero32(dst, maximumPacketSize, p.MaximumPacketSize)
		dst = appendNonzero16(dst, topicAliasMaximum, p.TopicAliasMaximum)
		dst = appendFlag(dst, requestResponse, p.RequestResponse, 1)
		dst = appendFlag(dst, requestProblem, p.NoProblem, 0)
		if p.HasAuthMethod {
			dst = appendString(append(dst, byte(authMethod)), p.AuthMethod)
			dst = appendText(dst, authData, p.AuthData)
		}
		dst = append(dst, p.UserProperties...)
		dst = endProperties(dst, at)
	}
	dst = appendString(dst, p.ClientID)
	if p.Will != nil {
		m := &p.Will.Message
		if v == V5 {
			var at int
			dst, at = beginProperties(dst)
			dst = appendNonzero32(dst, willDelay, p.Will.Delay)
			if m.HasExpiry {
				dst = appendProperty32(dst, messageExpiry, m.Expiry)
			}
			dst = append(dst, m.Properties...)
			dst = endProperties(dst, at)
		}
		dst = appendString(dst, m.Topic)
		dst = appendString(dst, m.Payload)
	}
	if p.HasUsername {
		dst = appendString(dst, p.Username)
	}
	if p.HasPassword {
		dst = appendString(dst, p.Password)
	}
	return end(dst, start)
}

// AppendConnack appends a CONNACK packet. In 3.x the Reason becomes one of the
// return codes 0 to 5, and Session Present is sent in 3.1.1 only.
func AppendConnack(dst []byte, v Version, p *Connack, limit int) []byte {
	present := bit(p.SessionPresent && p.Reason == mqtt.Success && v != V31, 1) // [MQTT-3.2.2-6]
	if v != V5 {
		return append(dst, byte(CONNACK)<<4, 2, present, ReturnCode(p.Reason))
	}
	return fit(dst, limit, p.UserProperties, p.ReasonString, func(dst, user []byte, text string) []byte {
		dst, start := begin(dst, CONNACK, 0)
		dst = append(dst, present, byte(p.Reason))
		dst, at := beginProperties(dst)
		if p.HasSessionExpiry {
			dst = appendProperty32(dst, sessionExpiry, p.SessionExpiry)
		}
		dst = appendNonzero16(dst, receiveMaximum, p.ReceiveMaximum)
		if p.HasMaximumQoS {
			dst = append(dst, byte(maximumQoS), byte(p.MaximumQoS))
		}
		dst = appendFlag(dst, retainAvailable, p.RetainUnavailable, 0)
		dst = appendNonzero32(dst, maximumPacketSize, p.MaximumPacketSize)
		dst = appendText(dst, assignedClientID, p.AssignedClientID)
		dst = appendNonzero16(dst, topicAliasMaximum, p.TopicAliasMaximum)
		dst = appendText(dst, reasonString, text)
		dst = appendFlag(dst, wildcardAvailable, p.WildcardUnavailable, 0)
		dst = appendFlag(dst, subscriptionIDAvailable, p.SubscriptionIDsUnavailable, 0)
		dst = appendFlag(dst, sharedAvailable, p.SharedUnavailable, 0)
		if p.HasServerKeepAlive {
			dst = append(dst, byte(serverKeepAlive), byte(p.ServerKeepAlive>>8), byte(p.ServerKeepAlive))
		}
		dst = appendText(dst, responseInformation, p.ResponseInformation)
		dst = appendText(dst, serverReference, p.ServerReference)
		dst = appendText(dst, authMethod, p.AuthMethod)
		dst = appendText(dst, authData, p.AuthData)
		dst = append(dst, user...)
		return end(endProperties(dst, at), start)
	})
}

// AppendAck appends a PUBACK, PUBREC, PUBREL or PUBCOMP packet. 3.x has no
// reasons.
func AppendAck(dst []byte, v Version, t Type, p *Ack, limit int) []byte {
	flags := bit(t == PUBREL, 2)
	if v != V5 || p.Reason == mqtt.Success && len(p.ReasonString) == 0 && len(p.UserProperties) == 0 {
		return append(dst, byte(t)<<4|flags, 2, byte(p.PacketID>>8), byte(p.PacketID))
	}
	if len(p.ReasonString) == 0 && len(p.UserProperties) == 0 {
		return append(dst, byte(t)<<4|flags, 3, byte(p.PacketID>>8), byte(p.PacketID), byte(p.Reason))
	}
	return fit(dst, limit, p.UserProperties, p.ReasonString, func(dst, user, text []byte) []byte {
		if len(user)+len(text) == 0 {
			return append(dst, byte(t)<<4|flags, 3, byte(p.PacketID>>8), byte(p.PacketID), byte(p.Reason))
		}
		dst, start := begin(dst, t, flags)
		dst = append(dst, byte(p.PacketID>>8), byte(p.PacketID), byte(p.Reason))
		return end(appendReasonProperties(dst, user, text), start)
	})
}

// AppendSubscribe appends a SUBSCRIBE packet. The Subscription Identifier is
// that of the first subscription.
func AppendSubscribe(dst []byte, v Version, p *Subscribe) []byte {
	dst, start := begin(dst, SUBSCRIBE, 2)
	dst = binary.BigEndian.AppendUint16(dst, p.PacketID)
	if v == V5 {
		var at int
		dst, at = beginProperties(dst)
		if len(p.Subscriptions) > 0 && p.Subscriptions[0].ID != 0 {
			dst = appendVarint(append(dst, byte(subscriptionID)), p.Subscriptions[0].ID)
		}
		dst = append(dst, p.UserProperties...)
		dst = endProperties(dst, at)
	}
	for i := range p.Subscriptions {
		s := &p.Subscriptions[i]
		dst = appendString(dst, s.Filter)
		o := byte(s.QoS)
		if v == V5 {
			o |= bit(s.NoLocal, 4) | bit(s.RetainAsPublished, 8) | byte(s.RetainHandling)<<4
		}
		dst = append(dst, o)
	}
	return end(dst, start)
}

// AppendSuback appends a SUBACK packet. In 3.x every failure is 0x80.
func AppendSuback(dst []byte, v Version, p *Suback, limit int) []byte {
	return appendSuback(dst, v, SUBACK, p, limit)
}

// AppendUnsuback appends an UNSUBACK packet. In 3.x it has no reason codes.
func AppendUnsuback(dst []byte, v Version, p *Suback, limit int) []byte {
	return appendSuback(dst, v, UNSUBACK, p, limit)
}

func appendSuback(dst []byte, v Version, t Type, p *Suback, limit int) []byte {
	return fit(dst, limit, p.UserProperties, p.ReasonString, func(dst, user []byte, text string) []byte {
		dst, start := begin(dst, t, 0)
		dst = binary.BigEndian.AppendUint16(dst, p.PacketID)
		switch {
		case v == V5:
			dst = appendReasonProperties(dst, user, text)
		case t == UNSUBACK:
			return end(dst, start)
		}
		for _, c := range p.Reasons {
			if v != V5 && c.Failed() {
				c = mqtt.UnspecifiedError // [MQTT-3.9.3-2 of 3.1.1]
			}
			dst = append(dst, byte(c))
		}
		return end(dst, start)
	})
}

// AppendUnsubscribe appends an UNSUBSCRIBE packet.
func AppendUnsubscribe(dst []byte, v Version, p *Unsubscribe) []byte {
	dst, start := begin(dst, UNSUBSCRIBE, 2)
	dst = binary.BigEndian.AppendUint16(dst, p.PacketID)
	if v == V5 {
		dst = appendReasonProperties(dst, p.UserProperties, "")
	}
	for _, f := range p.Filters {
		dst = appendString(dst, f)
	}
	return end(dst, start)
}

// AppendPingreq appends a PINGREQ packet.
func AppendPingreq(dst []byte) []byte { return append(dst, byte(PINGREQ)<<4, 0) }

// AppendPingresp appends a PINGRESP packet.
func AppendPingresp(dst []byte) []byte { return append(dst, byte(PINGRESP)<<4, 0) }

// AppendDisconnect appends a DISCONNECT packet. That of 3.x says nothing; a
// server of 3.x closes the connection instead.
func AppendDisconnect(dst []byte, v Version, p *Disconnect, limit int) []byte {
	if v != V5 {
		return append(dst, byte(DISCONNECT)<<4, 0)
	}
	return fit(dst, limit, p.UserProperties, p.ReasonString, func(dst, user []byte, text string) []byte {
		dst, start := begin(dst, DISCONNECT, 0)
		bare := !p.HasSessionExpiry && len(text)+len(p.ServerReference)+len(user) == 0
		if bare && p.Reason == mqtt.Success {
			return end(dst, start)
		}
		dst = append(dst, byte(p.Reason))
		if bare {
			return end(dst, start)
		}
		dst, at := beginProperties(dst)
		if p.HasSessionExpiry {
			dst = appendProperty32(dst, sessionExpiry, p.SessionExpiry)
		}
		dst = appendText(dst, reasonString, text)
		dst = appendText(dst, serverReference, p.ServerReference)
		dst = append(dst, user...)
		return end(endProperties(dst, at), start)
	})
}

// AppendAuth appends an AUTH packet, which only MQTT 5 has.
func AppendAuth(dst []byte, p *Auth, limit int) []byte {
	return fit(dst, limit, p.UserProperties, p.ReasonString, func(dst, user []byte, text string) []byte {
		dst, start := begin(dst, AUTH, 0)
		dst = append(dst, byte(p.Reason))
		dst, at := beginProperties(dst)
		if p.HasMethod {
			dst = appendString(append(dst, byte(authMethod)), p.Method)
			dst = appendText(dst, authData, p.Data)
		}
		dst = appendText(dst, reasonString, text)
		dst = append(dst, user...)
		return end(endProperties(dst, at), start)
	})
}

// Append appends p, whatever its type; CONNECT carries its own version.
func Append(dst []byte, v Version, p *Packet, limit int) []byte {
	switch p.Type {
	case CONNECT:
		return AppendConnect(dst, p.Connect)
	case CONNACK:
		return AppendConnack(dst, v, p.Connack, limit)
	case PUBLISH:
		q := &p.Publish
		return AppendPublish(dst, v, &q.Message, Delivery{
			QoS: q.Message.QoS, Retain: q.Message.Retain, Dup: q.Dup, PacketID: q.PacketID,
			SubscriptionIDs: q.SubscriptionIDs, TopicAlias: q.TopicAlias, HasTopicAlias: q.HasTopicAlias,
		})
	case PUBACK, PUBREC, PUBREL, PUBCOMP:
		return AppendAck(dst, v, p.Type, &p.Ack, limit)
	case SUBSCRIBE:
		return AppendSubscribe(dst, v, p.Subscribe)
	case SUBACK, UNSUBACK:
		return appendSuback(dst, v, p.Type, p.Suback, limit)
	case UNSUBSCRIBE:
		return AppendUnsubscribe(dst, v, p.Unsubscribe)
	case PINGREQ:
		return AppendPingreq(dst)
	case PINGRESP:
		return AppendPingresp(dst)
	case DISCONNECT:
		return AppendDisconnect(dst, v, p.Disconnect, limit)
	case AUTH:
		return AppendAuth(dst, p.Auth, limit)
	}
	return dst
}

// AppendUserProperty appends a User Property as UserProperties fields have it.
func AppendUserProperty(dst []byte, key, value string) []byte {
	return appendString(appendString(append(dst, byte(userProperty)), key), value)
}

// fit calls encode with less and less until what it appends is at most limit
// bytes; if even the least is too much, dst is returned as it was.
func fit[S ~string | ~[]byte](dst []byte, limit int, user []byte, text S, encode func(dst, user []byte, text S) []byte) []byte {
	out := encode(dst, user, text)
	if limit <= 0 || len(out)-len(dst) <= limit {
		return out
	}
	if out = encode(dst, nil, text); len(out)-len(dst) <= limit {
		return out
	}
	if out = encode(dst, nil, text[:0]); len(out)-len(dst) <= limit {
		return out
	}
	return out[:len(dst)]
}

func appendReasonProperties[S ~string | ~[]byte](dst, user []byte, text S) []byte {
	dst, at := beginProperties(dst)
	dst = appendText(dst, reasonString, text)
	dst = append(dst, user...)
	return endProperties(dst, at)
}

// begin appends a header with room for the longest remaining length; end puts
// in the length and closes the gap.
func begin(dst []byte, t Type, flags byte) (out []byte, start int) {
	return append(dst, byte(t)<<4|flags, 0, 0, 0, 0), len(dst)
}

func end(dst []byte, start int) []byte { return closeGap(dst, start+1, 4) }

// beginProperties and endProperties do the same for a block of properties,
// which most often has less than 128 bytes.
func beginProperties(dst []byte) (out []byte, at int) {
	return append(dst, 0, 0, 0, 0), len(dst)
}

func endProperties(dst []byte, at int) []byte { return closeGap(dst, at, 4) }

// closeGap writes the length of what follows the gap at that place into it,
// and removes what is left of it.
func closeGap(dst []byte, at, gap int) []byte {
	n := len(dst) - at - gap
	used := len(appendVarint(dst[:at], uint32(n))) - at
	copy(dst[at+used:], dst[at+gap:])
	return dst[:at+used+n]
}

func bit(on bool, b byte) byte {
	if on {
		return b
	}
	return 0
}

func appendString[S ~string | ~[]byte](dst []byte, s S) []byte {
	if len(s) > 65535 {
		s = s[:65535]
	}
	dst = append(dst, byte(len(s)>>8), byte(len(s)))
	return append(dst, s...)
}

// appendText appends a string or binary property unless it is empty.
func appendText[S ~string | ~[]byte](dst []byte, id propertyID, s S) []byte {
	if len(s) == 0 {
		return dst
	}
	return appendString(append(dst, byte(id)), s)
}

func appendProperty32(dst []byte, id propertyID, v uint32) []byte {
	return binary.BigEndian.AppendUint32(append(dst, byte(id)), v)
}

func appendNonzero32(dst []byte, id propertyID, v uint32) []byte {
	if v == 0 {
		return dst
	}
	return appendProperty32(dst, id, v)
}

func appendNonzero16(dst []byte, id propertyID, v uint16) []byte {
	if v == 0 {
		return dst
	}
	return append(dst, byte(id), byte(v>>8), byte(v))
}

func appendFlag(dst []byte, id propertyID, on bool, v byte) []byte {
	if !on {
		return dst
	}
	return append(dst, byte(id), v)
}
