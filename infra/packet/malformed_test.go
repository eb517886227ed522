// SPDX-License-Identifier: Apache-2.0

package packet_test

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
)

// raw reads bytes written as hex, with 'text' for literal text and, in front
// of it, ~ for its length in two bytes.
func raw(t testing.TB, s string) []byte {
	t.Helper()
	var b []byte
	for s = strings.TrimSpace(s); s != ""; s = strings.TrimSpace(s) {
		if n := strings.IndexByte(s, '~'); n == 0 {
			text, rest, _ := strings.Cut(s[2:], "'")
			b = append(b, byte(len(text)>>8), byte(len(text)))
			b, s = append(b, text...), rest
			continue
		}
		if s[0] == '\'' {
			text, rest, _ := strings.Cut(s[1:], "'")
			b, s = append(b, text...), rest
			continue
		}
		if s[0] == '[' {
			block, rest, _ := strings.Cut(s[1:], "]")
			in := raw(t, block)
			b, s = append(append(b, byte(len(in))), in...), rest
			continue
		}
		word, rest, _ := strings.Cut(s, " ")
		x, err := hex.DecodeString(word)
		if err != nil {
			t.Fatalf("raw %q: %v", word, err)
		}
		b, s = append(b, x...), rest
	}
	return b
}

// framed puts a header before a body.
func framed(first byte, body []byte) []byte {
	n := len(body)
	b := []byte{first}
	for n >= 128 {
		b = append(b, byte(n)|0x80)
		n >>= 7
	}
	return append(append(b, byte(n)), body...)
}

func TestDecodeRefuses(t *testing.T) {
	const (
		malformed = mqtt.MalformedPacket
		protocol  = mqtt.ProtocolError
		v0        = packet.Version(0)
	)
	for _, c := range []struct {
		name  string
		v     packet.Version
		first byte
		body  string
		want  mqtt.ReasonCode
	}{
		// Headers.
		{"type 0 MQTT-2.1.2", packet.V5, 0x00, "", malformed},
		{"type 15 before 5", packet.V311, 0xF0, "", malformed},
		{"CONNECT flags MQTT-2.1.3-1", v0, 0x11, "~'MQTT' 05 02 0000 00 ~'a'", malformed},
		{"PUBREL flags MQTT-3.6.1-1", packet.V5, 0x60, "0001", malformed},
		{"SUBSCRIBE flags MQTT-3.8.1-1", packet.V5, 0x80, "0001 00 ~'a' 00", malformed},
		{"UNSUBSCRIBE flags MQTT-3.10.1-1", packet.V311, 0xA0, "0001 ~'a'", malformed},
		{"DISCONNECT flags MQTT-3.14.1-1", packet.V5, 0xE1, "", malformed},
		{"PINGREQ body", packet.V5, 0xC0, "00", malformed},
		{"first is not CONNECT MQTT-3.1.0-1", v0, 0xC0, "", protocol},

		// CONNECT.
		{"protocol name MQTT-3.1.2-1", v0, 0x10, "~'MQTX' 04 02 0000 ~'a'", mqtt.UnsupportedProtocolVersion},
		{"protocol level MQTT-3.1.2-2", v0, 0x10, "~'MQTT' 06 02 0000 ~'a'", mqtt.UnsupportedProtocolVersion},
		{"level 3 of MQTT", v0, 0x10, "~'MQTT' 03 02 0000 ~'a'", mqtt.UnsupportedProtocolVersion},
		{"reserved flag MQTT-3.1.2-3", v0, 0x10, "~'MQTT' 05 03 0000 00 ~'a'", malformed},
		{"will QoS without will MQTT-3.1.2-11", v0, 0x10, "~'MQTT' 05 0A 0000 00 ~'a'", malformed},
		{"will QoS 3 MQTT-3.1.2-12", v0, 0x10, "~'MQTT' 05 1E 0000 00 ~'a' 00 ~'w' 0000", malformed},
		{"will retain without will MQTT-3.1.2-13", v0, 0x10, "~'MQTT' 05 22 0000 00 ~'a'", malformed},
		{"password alone in 3.1.1", v0, 0x10, "~'MQTT' 04 42 0000 ~'a' ~'p'", malformed},
		{"no client id in 3.1", v0, 0x10, "~'MQIsdp' 03 02 0000 0000", mqtt.ClientIdentifierNotValid},
		{"no client id, session kept MQTT-3.1.3-8 of 3.1.1", v0, 0x10, "~'MQTT' 04 00 0000 0000", mqtt.ClientIdentifierNotValid},
		{"client id not UTF-8 MQTT-1.5.4-1", v0, 0x10, "~'MQTT' 05 02 0000 00 0001 FF", malformed},
		{"client id with U+0000 MQTT-1.5.4-2", v0, 0x10, "~'MQTT' 05 02 0000 00 0001 00", malformed},
		{"user name surrogate MQTT-1.5.4-1", v0, 0x10, "~'MQTT' 05 82 0000 00 ~'a' 0003 EDA080", malformed},
		{"will topic wildcard", v0, 0x10, "~'MQTT' 05 06 0000 00 ~'a' 00 ~'w/+' 0000", mqtt.TopicNameInvalid},
		{"will topic empty MQTT-4.7.3-1", v0, 0x10, "~'MQTT' 05 06 0000 00 ~'a' 00 0000 0000", mqtt.TopicNameInvalid},
		{"will payload not UTF-8", v0, 0x10, "~'MQTT' 05 06 0000 00 ~'a' 02 0101 ~'w' 0001 FF", mqtt.PayloadFormatInvalid},
		{"receive maximum 0", v0, 0x10, "~'MQTT' 05 02 0000 03 210000 ~'a'", protocol},
		{"maximum packet size 0", v0, 0x10, "~'MQTT' 05 02 0000 05 2700000000 ~'a'", protocol},
		{"session expiry twice", v0, 0x10, "~'MQTT' 05 02 0000 0A 1100000001 1100000001 ~'a'", protocol},
		{"request problem 2", v0, 0x10, "~'MQTT' 05 02 0000 02 1702 ~'a'", protocol},
		{"auth data alone", v0, 0x10, "~'MQTT' 05 02 0000 04 16000161 ~'a'", protocol},
		{"topic alias in CONNECT", v0, 0x10, "~'MQTT' 05 02 0000 03 230001 ~'a'", malformed},
		{"unknown property", v0, 0x10, "~'MQTT' 05 02 0000 02 7F00 ~'a'", malformed},
		{"property 0", v0, 0x10, "~'MQTT' 05 02 0000 02 0000 ~'a'", malformed},
		{"properties beyond the end", v0, 0x10, "~'MQTT' 05 02 0000 7F 0000", malformed},
		{"property beyond its block", v0, 0x10, "~'MQTT' 05 02 0000 02 1100 ~'abcd'", malformed},
		{"property length padded MQTT-1.5.5-1", v0, 0x10, "~'MQTT' 05 02 0000 8000 ~'a'", malformed},
		{"cut short", v0, 0x10, "~'MQTT' 05 02 00", malformed},
		{"bytes follow", v0, 0x10, "~'MQTT' 04 02 0000 ~'a' 00", malformed},

		// PUBLISH.
		{"QoS 3 MQTT-3.3.1-4", packet.V5, 0x36, "~'a' 0001 00", malformed},
		{"DUP at QoS 0 MQTT-3.3.1-2", packet.V5, 0x38, "~'a' 00", malformed},
		{"topic wildcard MQTT-3.3.2-2", packet.V5, 0x30, "~'a/#' 00", mqtt.TopicNameInvalid},
		{"topic wildcard in 3.1.1", packet.V311, 0x30, "~'+'", mqtt.TopicNameInvalid},
		{"topic not UTF-8 MQTT-1.5.4-1", packet.V5, 0x30, "0001 C0 00", malformed},
		{"no topic and no alias", packet.V5, 0x30, "0000 00", protocol},
		{"no topic in 3.1.1", packet.V311, 0x30, "0000", protocol},
		{"packet id 0 MQTT-2.2.1-3", packet.V5, 0x32, "~'a' 0000 00", protocol},
		{"no packet id", packet.V311, 0x32, "~'a'", malformed},
		{"alias twice", packet.V5, 0x30, "~'a' 06 230001 230001", protocol},
		{"subscription id 0", packet.V5, 0x30, "~'a' 02 0B00", protocol},
		{"format 2", packet.V5, 0x30, "~'a' 02 0102", protocol},
		{"format says UTF-8", packet.V5, 0x30, "~'a' 02 0101 FF", mqtt.PayloadFormatInvalid},
		{"response topic wildcard MQTT-3.3.2-14", packet.V5, 0x30, "~'a' 04 08 ~'#'", protocol},
		{"response topic empty", packet.V5, 0x30, "~'a' 03 08 0000", protocol},
		{"user property not UTF-8", packet.V5, 0x30, "~'a' 06 26 0001 FF 0000", malformed},
		{"will delay in PUBLISH", packet.V5, 0x30, "~'a' 05 1800000001", malformed},
		{"five byte subscription id", packet.V5, 0x30, "~'a' 06 0B 8080808001", malformed},

		// Acknowledgements.
		{"PUBACK id 0 MQTT-2.2.1-3", packet.V311, 0x40, "0000", protocol},
		{"PUBACK in 3.1.1 with a reason", packet.V311, 0x40, "0001 00", malformed},
		{"PUBACK reason", packet.V5, 0x40, "0001 92", protocol},
		{"PUBREL reason", packet.V5, 0x62, "0001 80", protocol},
		{"PUBCOMP server reference", packet.V5, 0x70, "0001 00 03 1C0000", malformed},
		{"reason string twice", packet.V5, 0x50, "0001 00 06 1F0000 1F0000", protocol},

		// SUBSCRIBE and UNSUBSCRIBE.
		{"no filter MQTT-3.8.3-2", packet.V5, 0x82, "0001 00", protocol},
		{"no filter in 3.1.1 MQTT-3.8.3-3 of 3.1.1", packet.V311, 0x82, "0001", protocol},
		{"SUBSCRIBE id 0 MQTT-2.2.1-3", packet.V5, 0x82, "0000 00 ~'a' 00", protocol},
		{"subscription QoS 3", packet.V5, 0x82, "0001 00 ~'a' 03", protocol},
		{"subscription QoS 3 in 3.1.1", packet.V311, 0x82, "0001 ~'a' 03", malformed},
		{"retain handling 3", packet.V5, 0x82, "0001 00 ~'a' 30", protocol},
		{"option bits MQTT-3.8.3-5", packet.V5, 0x82, "0001 00 ~'a' 40", malformed},
		{"option bits in 3.1.1 MQTT-3-8.3-4", packet.V311, 0x82, "0001 ~'a' 04", malformed},
		{"shared and no local MQTT-3.8.3-4", packet.V5, 0x82, "0001 00 ~'$share/g/a' 04", protocol},
		{"share name MQTT-4.8.2-2", packet.V5, 0x82, "0001 00 ~'$share/+/a' 00", mqtt.TopicFilterInvalid},
		{"filter MQTT-4.7.1-1", packet.V5, 0x82, "0001 00 ~'a/#/b' 00", mqtt.TopicFilterInvalid},
		{"empty filter MQTT-4.7.3-1", packet.V311, 0x82, "0001 0000 00", mqtt.TopicFilterInvalid},
		{"filter not UTF-8 MQTT-3.8.3-1", packet.V5, 0x82, "0001 00 0001 FF 00", malformed},
		{"filter without options", packet.V5, 0x82, "0001 00 ~'a'", malformed},
		{"subscription id twice", packet.V5, 0x82, "0001 04 0B01 0B02 ~'a' 00", protocol},
		{"subscription id 0 in SUBSCRIBE", packet.V5, 0x82, "0001 02 0B00 ~'a' 00", protocol},
		{"no filter MQTT-3.10.3-2", packet.V5, 0xA2, "0001 00", protocol},
		{"UNSUBSCRIBE filter", packet.V5, 0xA2, "0001 00 ~'+a'", mqtt.TopicFilterInvalid},

		// The rest.
		{"DISCONNECT reason", packet.V5, 0xE0, "01", protocol},
		{"DISCONNECT of 3.1.1 with body", packet.V311, 0xE0, "00", malformed},
		{"AUTH data alone", packet.V5, 0xF0, "18 04 16000161", protocol},
		{"AUTH reason", packet.V5, 0xF0, "80", protocol},
		{"CONNACK flags MQTT-3.2.2-1", packet.V5, 0x20, "02 00 00", malformed},
		{"CONNACK session present MQTT-3.2.2-6", packet.V5, 0x20, "01 80 00", protocol},
		{"CONNACK return code", packet.V311, 0x20, "00 06", protocol},
		{"SUBACK reason", packet.V5, 0x90, "0001 00 03", protocol},
		{"SUBACK without reasons", packet.V5, 0x90, "0001 00", protocol},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := framed(c.first, raw(t, c.body))
			var d packet.Decoder
			var p packet.Packet
			_, err := d.Decode(b, c.v, 0, &p)
			var e *packet.Error
			if !errors.As(err, &e) || e.Reason != c.want {
				t.Fatalf("Decode(% X) = %v, want %v", b, err, c.want)
			}
			if e.Type != packet.Type(c.first>>4) || e.Text == "" {
				t.Errorf("the error does not say where: %+v", e)
			}
			// One byte at a time it is the same.
			for i := range b {
				n, early := d.Decode(b[:i], c.v, 0, &p)
				if n != 0 || early != nil && !errors.Is(early, c.want) {
					t.Fatalf("Decode of %d bytes = %d, %v", i, n, early)
				}
			}
		})
	}
}

func TestDecodeRefusesLengths(t *testing.T) {
	var d packet.Decoder
	var p packet.Packet
	for _, c := range []struct {
		b    string
		v    packet.Version
		want error
	}{
		{"30 FFFFFFFF", packet.V5, mqtt.MalformedPacket},
		{"30 808080", packet.V5, nil}, // may go on
		{"C0 8000", packet.V5, mqtt.MalformedPacket},
		{"C0 8000", packet.V311, nil}, // 3.1.1 does not forbid it
		{"30 E807", packet.V5, mqtt.PacketTooLarge},
	} {
		if _, err := d.Decode(raw(t, c.b), c.v, 1000, &p); !errors.Is(err, c.want) {
			t.Errorf("Decode(%s) = %v, want %v", c.b, err, c.want)
		}
	}
}

func TestDecodeConnectTellsVersionOfRefused(t *testing.T) {
	for _, c := range []struct {
		body string
		want packet.Version
	}{
		// 3.1.1 wants the answer to be its own [MQTT-3.1.2-2 of 3.1.1].
		{"~'MQTT' 06 02 0000 ~'a'", packet.V311},
		{"~'MQTT' 02 02 0000 ~'a'", packet.V311},
		{"~'MQTT' 05 03 0000 00 ~'a'", packet.V5},
		{"~'HTTP' 04 02 0000 ~'a'", 0},
	} {
		var d packet.Decoder
		var p packet.Packet
		if _, err := d.Decode(framed(0x10, raw(t, c.body)), 0, 0, &p); err == nil || p.Connect.Version != c.want {
			t.Errorf("%s: version %v, %v", c.body, p.Connect.Version, err)
		}
	}
}
