// SPDX-License-Identifier: Apache-2.0

package packet

import (
	"unicode/utf8"

	"github.com/manormq/manor/infra/mqtt"
)

// The flags of CONNECT [MQTT-3.1.2.3].
const (
	flagReserved   = 1 << 0
	flagCleanStart = 1 << 1
	flagWill       = 1 << 2
	flagWillRetain = 1 << 5
	flagPassword   = 1 << 6
	flagUsername   = 1 << 7
)

// version reads the protocol name and level.
func (r *reader) version(p *Connect) {
	name := string(r.utf8())
	level := r.byte()
	if r.err != nil {
		return
	}
	p.Bridge = level == 0x80|byte(V31) || level == 0x80|byte(V311)
	if p.Bridge {
		level &^= 0x80
	}
	switch {
	case name == "MQIsdp" && level == byte(V31), name == "MQTT" && (level == byte(V311) || level == byte(V5)):
		p.Version = Version(level)
	case name == "MQTT" || name == "MQIsdp": // [MQTT-3.1.2-2]
		// The answer is 3.1.1's, which wants one [MQTT-3.1.2-2 of 3.1.1]; 5.0 leaves
		// it open.
		p.Version = V311
		r.fail(mqtt.UnsupportedProtocolVersion, "the protocol level is not 3 of MQIsdp, nor 4 or 5 of MQTT [MQTT-3.1.2-2]")
	default:
		r.fail(mqtt.UnsupportedProtocolVersion, "the protocol name is not MQTT [MQTT-3.1.2-1]")
	}
}

func (r *reader) connect(d *Decoder, p *Connect) {
	r.version(p)
	flags := r.byte()
	if r.err != nil {
		return
	}
	v := p.Version
	willQoS := mqtt.QoS(flags >> 3 & 3)
	switch {
	case flags&flagReserved != 0 && v != V31:
		r.malformed("the reserved connect flag is set [MQTT-3.1.2-3]")
	case flags&flagWill == 0 && willQoS != 0:
		r.malformed("there is a will QoS without a will [MQTT-3.1.2-11]")
	case flags&flagWill == 0 && flags&flagWillRetain != 0:
		r.malformed("there is a will retain without a will [MQTT-3.1.2-13]")
	case willQoS == 3:
		r.malformed("the will QoS is 3 [MQTT-3.1.2-12]")
	case flags&flagPassword != 0 && flags&flagUsername == 0 && v != V5:
		r.malformed("there is a password without a user name [MQTT-3.1.2-22 of 3.1.1]")
	}
	p.CleanStart = flags&flagCleanStart != 0
	p.KeepAlive = r.uint16()
	if v == V5 {
		r.connectProperties(p)
	}
	p.ClientID = r.string()
	if flags&flagWill != 0 {
		p.Will = &mqtt.Will{Message: mqtt.Message{QoS: willQoS, Retain: flags&flagWillRetain != 0}}
		r.will(d, v, p.Will)
	}
	if flags&flagUsername != 0 {
		p.Username, p.HasUsername = r.string(), true
	}
	if flags&flagPassword != 0 {
		p.Password, p.HasPassword = r.binary(), true
	}
	if r.err != nil || p.ClientID != "" {
		return
	}
	switch {
	case v == V31:
		r.fail(mqtt.ClientIdentifierNotValid, "MQTT 3.1 needs a client identifier")
	case v == V311 && !p.CleanStart:
		r.fail(mqtt.ClientIdentifierNotValid, "without a client identifier clean session must be 1 [MQTT-3.1.3-7 of 3.1.1]")
	}
}

func (r *reader) connectProperties(p *Connect) {
	var f forwarded
	data := false
	for pr := r.properties(CONNECT); pr.next(r); {
		switch pr.id {
		case sessionExpiry:
			p.SessionExpiry, p.HasSessionExpiry = pr.num, true
		case receiveMaximum:
			p.ReceiveMaximum = uint16(pr.num)
		case maximumPacketSize:
			p.MaximumPacketSize = pr.num
		case topicAliasMaximum:
			p.TopicAliasMaximum = uint16(pr.num)
		case requestResponse:
			p.RequestResponse = pr.num == 1
		case requestProblem:
			p.NoProblem = pr.num == 0
		case authMethod:
			p.AuthMethod, p.HasAuthMethod = string(pr.data), true
		case authData:
			p.AuthData, data = pr.data, true
		case userProperty:
			f.user(&pr)
		}
	}
	p.UserProperties = f.props
	if r.err == nil && data && !p.HasAuthMethod { // §3.1.2.11.10
		r.protocol("there is authentication data without a method")
	}
}

func (r *reader) will(d *Decoder, v Version, w *mqtt.Will) {
	m := &w.Message
	format := false
	if v == V5 {
		var f forwarded
		for pr := r.properties(will); pr.next(r); {
			if pr.id == willDelay {
				w.Delay = pr.num
				continue
			}
			f.message(r, d, &pr, m, &format)
		}
		m.Properties = f.props
	}
	m.Topic = r.topicName()
	if r.err == nil && len(m.Topic) == 0 {
		r.fail(mqtt.TopicNameInvalid, "the will topic is empty [MQTT-4.7.3-1]")
	}
	m.Payload = r.binary()
	if format && r.err == nil && !utf8.Valid(m.Payload) {
		r.fail(mqtt.PayloadFormatInvalid, "the will payload is not the UTF-8 that its format indicator says")
	}
}

func (r *reader) connack(v Version, p *Connack) {
	flags, code := r.byte(), r.byte()
	if r.err != nil {
		return
	}
	if flags > 1 && v != V31 {
		r.malformed("reserved acknowledge flags are set [MQTT-3.2.2-1]")
		return
	}
	p.SessionPresent = flags&1 != 0 && v != V31 // 3.1 has no such flag
	if p.SessionPresent && code != 0 {
		r.protocol("session present is set in a refusal [MQTT-3.2.2-6]")
		return
	}
	if v != V5 {
		if int(code) >= len(returnCodes) {
			r.protocol("the return code is reserved")
			return
		}
		p.Reason = returnCodes[code]
		return
	}
	p.Reason = mqtt.ReasonCode(code)
	var f forwarded
	for pr := r.properties(CONNACK); pr.next(r); {
		switch pr.id {
		case sessionExpiry:
			p.SessionExpiry, p.HasSessionExpiry = pr.num, true
		case receiveMaximum:
			p.ReceiveMaximum = uint16(pr.num)
		case maximumQoS:
			p.MaximumQoS, p.HasMaximumQoS = mqtt.QoS(pr.num), true
		case retainAvailable:
			p.RetainUnavailable = pr.num == 0
		case maximumPacketSize:
			p.MaximumPacketSize = pr.num
		case assignedClientID:
			p.AssignedClientID = string(pr.data)
		case topicAliasMaximum:
			p.TopicAliasMaximum = uint16(pr.num)
		case reasonString:
			p.ReasonString = string(pr.data)
		case wildcardAvailable:
			p.WildcardUnavailable = pr.num == 0
		case subscriptionIDAvailable:
			p.SubscriptionIDsUnavailable = pr.num == 0
		case sharedAvailable:
			p.SharedUnavailable = pr.num == 0
		case serverKeepAlive:
			p.ServerKeepAlive, p.HasServerKeepAlive = uint16(pr.num), true
		case responseInformation:
			p.ResponseInformation = string(pr.data)
		case serverReference:
			p.ServerReference = string(pr.data)
		case authMethod:
			p.AuthMethod = string(pr.data)
		case authData:
			p.AuthData = pr.data
		case userProperty:
			f.user(&pr)
		}
	}
	p.UserProperties = f.props
}
