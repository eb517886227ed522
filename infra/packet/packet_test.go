// SPDX-License-Identifier: Apache-2.0

package packet_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
)

// packets are one or more good ones of every type.
var packets = []struct {
	name  string
	v     packet.Version
	first byte
	body  string
}{
	{"connect 3.1", 0, 0x10, "~'MQIsdp' 03 02 003C ~'a'"},
	{"connect 3.1.1", 0, 0x10, "~'MQTT' 04 C2 003C ~'a' ~'user' ~'pass'"},
	{"connect bridge", 0, 0x10, "~'MQTT' 84 00 003C ~'a'"},
	{"connect 5", 0, 0x10, "~'MQTT' 05 EE 003C [1100000E10 210014 2700010000 22000A 1901 1700 26 ~'k' ~'v'] ~'a' [1800000005 02 0000003C 01 01 03 ~''] ~'will/t' ~'gone' ~'user' 0002 FFFE"},
	{"connect 5 password alone", 0, 0x10, "~'MQTT' 05 42 0000 00 0000 ~'p'"},
	{"connect 5 auth", 0, 0x10, "~'MQTT' 05 02 0000 [15 ~'SCR' 16 ~'d'] ~'a'"},
	{"connack 3.1.1", packet.V311, 0x20, "01 00"},
	{"connack refused", packet.V311, 0x20, "00 05"},
	{"connack 5", packet.V5, 0x20, "01 00 [1100000E10 210014 2401 2500 2700010000 12 ~'id' 220005 1F ~'r' 2800 2900 2A00 13000A]"},
	{"publish 3.1.1", packet.V311, 0x31, "~'a/b' 'hello'"},
	{"publish 3.1.1 QoS 2", packet.V311, 0x3C, "~'a/b' 0007 'hello'"},
	{"publish 5", packet.V5, 0x32, "~'a/b' 0007 00 'hello'"},
	{"publish 5 properties", packet.V5, 0x32, "~'a/b' 0007 [02 0000000A 01 01 03 ~'t' 08 ~'r' 09 ~'c' 26 ~'k' ~'v'] 'hello'"},
	{"publish 5 scattered", packet.V5, 0x32, "~'a/b' 0007 [01 01 02 0000000A 26 ~'k' ~'v' 23 0005 0B 01 26 ~'k' ~'w'] 'hello'"},
	{"publish 5 alias only", packet.V5, 0x30, "0000 03 230005 'hello'"},
	{"publish 5 empty", packet.V5, 0x30, "~'a' 00"},
	{"puback", packet.V311, 0x40, "0001"},
	{"puback 5", packet.V5, 0x40, "0001 10"},
	{"pubrec 5", packet.V5, 0x50, "0001 87 0B 1F ~'r' 26 ~'k' ~'v'"},
	{"pubrel", packet.V5, 0x62, "0001 92"},
	{"pubcomp", packet.V5, 0x70, "0001"},
	{"subscribe 3.1.1", packet.V311, 0x82, "0001 ~'a/+' 01 ~'#' 02"},
	{"subscribe 5", packet.V5, 0x82, "0001 0A 0B 8101 26 ~'k' ~'v' ~'a/+' 2E ~'$share/g/#' 01"},
	{"suback", packet.V311, 0x90, "0001 00 01 02 80"},
	{"suback 5", packet.V5, 0x90, "0001 04 1F ~'r' 00 87 8F"},
	{"unsubscribe", packet.V311, 0xA2, "0001 ~'a' ~'b'"},
	{"unsubscribe 5", packet.V5, 0xA2, "0001 00 ~'a' ~'b'"},
	{"unsuback", packet.V311, 0xB0, "0001"},
	{"unsuback 5", packet.V5, 0xB0, "0001 00 00 11"},
	{"pingreq", packet.V5, 0xC0, ""},
	{"pingresp", packet.V31, 0xD0, ""},
	{"disconnect", packet.V311, 0xE0, ""},
	{"disconnect 5", packet.V5, 0xE0, "04 0C 1100000000 1F ~'b' 1C ~''"},
	{"auth", packet.V5, 0xF0, "18 08 15 ~'m' 16 ~'d'"},
	{"auth success", packet.V5, 0xF0, ""},
}

// again encodes p, decodes that, and requires that both say the same and that
// a third round changes no byte.
func again(t *testing.T, v packet.Version, p *packet.Packet) {
	t.Helper()
	var d packet.Decoder
	b2 := packet.Append([]byte("front"), v, p, 0)[5:]
	dv := v
	if p.Type == packet.CONNECT {
		dv = 0
	}
	var p2 packet.Packet
	n, err := d.Decode(b2, dv, 0, &p2)
	if err != nil && !errors.Is(err, mqtt.PayloadFormatInvalid) || n != len(b2) {
		t.Fatalf("decode of what was encoded (% X): %d of %d, %v", b2, n, len(b2), err)
	}
	if diff := cmp.Diff(p, &p2, cmpopts.EquateEmpty()); diff != "" {
		t.Fatalf("encoded and decoded (-before +after):\n%s", diff)
	}
	if b3 := packet.Append(nil, v, &p2, 0); !bytes.Equal(b2, b3) {
		t.Fatalf("encoded again:\n% X\n% X", b2, b3)
	}
}

func TestDecodeEncode(t *testing.T) {
	for _, c := range packets {
		t.Run(c.name, func(t *testing.T) {
			b := framed(c.first, raw(t, c.body))
			var d packet.Decoder
			var p packet.Packet
			for i := range b {
				if n, err := d.Decode(b[:i], c.v, 0, &p); n != 0 || err != nil {
					t.Fatalf("Decode of the first %d bytes = %d, %v", i, n, err)
				}
			}
			n, err := d.Decode(append(b, 0xC0, 0), c.v, len(b), &p)
			if n != len(b) || err != nil {
				t.Fatalf("Decode(% X) = %d, %v", b, n, err)
			}
			again(t, c.v, &p)
			if _, err := d.Decode(b, c.v, len(b)-1, &p); !errors.Is(err, mqtt.PacketTooLarge) {
				t.Errorf("with maxSize %d: %v", len(b)-1, err)
			}
		})
	}
}

func TestDecodeConnect5(t *testing.T) {
	var d packet.Decoder
	var p packet.Packet
	if _, err := d.Decode(framed(0x10, raw(t, packets[3].body)), 0, 0, &p); err != nil {
		t.Fatal(err)
	}
	want := &packet.Connect{
		Version: packet.V5, CleanStart: true, KeepAlive: 60, ClientID: "a",
		Username: "user", HasUsername: true, Password: []byte{0xFF, 0xFE}, HasPassword: true,
		SessionExpiry: 3600, HasSessionExpiry: true, ReceiveMaximum: 20, MaximumPacketSize: 65536, TopicAliasMaximum: 10,
		RequestResponse: true, NoProblem: true, UserProperties: raw(t, "26 ~'k' ~'v'"),
		Will: &mqtt.Will{Delay: 5, Message: mqtt.Message{
			Topic: []byte("will/t"), Payload: []byte("gone"), Properties: raw(t, "0101 03 ~''"),
			Expiry: 60, HasExpiry: true, QoS: mqtt.AtLeastOnce, Retain: true,
		}},
	}
	if diff := cmp.Diff(want, p.Connect); diff != "" {
		t.Error(diff)
	}
}

func TestDecodePublishGathersForwardedProperties(t *testing.T) {
	for _, c := range []struct{ name, props, want string }{
		{"none", "", ""},
		{"all", "0101 03 ~'t' 26 ~'k' ~'v'", "0101 03 ~'t' 26 ~'k' ~'v'"},
		{"expiry first", "02 0000000A 0101 26 ~'k' ~'v'", "0101 26 ~'k' ~'v'"},
		{"expiry last", "0101 26 ~'k' ~'v' 02 0000000A", "0101 26 ~'k' ~'v'"},
		{"expiry between", "0101 02 0000000A 26 ~'k' ~'v'", "0101 26 ~'k' ~'v'"},
		{"scattered", "0101 02 0000000A 26 ~'k' ~'v' 0B01 26 ~'k' ~'w' 230001 03 ~'t'", "0101 26 ~'k' ~'v' 26 ~'k' ~'w' 03 ~'t'"},
	} {
		t.Run(c.name, func(t *testing.T) {
			props := raw(t, c.props)
			b := append(raw(t, "~'a'"), byte(len(props)))
			b = framed(0x30, append(append(b, props...), "payload"...))
			// Two in a row: what was moved together for the first lives on.
			var d packet.Decoder
			var p, q packet.Packet
			for range 2 {
				if _, err := d.Decode(b, packet.V5, 0, &p); err != nil {
					t.Fatal(err)
				}
				if _, err := d.Decode(b, packet.V5, 0, &q); err != nil {
					t.Fatal(err)
				}
				for _, p := range []*packet.Packet{&p, &q} {
					if got := p.Publish.Message.Properties; !bytes.Equal(got, raw(t, c.want)) {
						t.Errorf("Properties = % X, want % X", got, raw(t, c.want))
					}
					if string(p.Publish.Message.Payload) != "payload" {
						t.Errorf("Payload = %q", p.Publish.Message.Payload)
					}
				}
				d.Reset()
			}
		})
	}
}

func TestDecodePublishKeepsPacketOfBadPayload(t *testing.T) {
	var d packet.Decoder
	var p packet.Packet
	b := framed(0x32, raw(t, "~'a' 0007 02 0101 FF"))
	n, err := d.Decode(b, packet.V5, 0, &p)
	if n != len(b) || !errors.Is(err, mqtt.PayloadFormatInvalid) || p.Publish.PacketID != 7 {
		t.Errorf("Decode = %d, %v, packet id %d", n, err, p.Publish.PacketID)
	}
}

func TestPublishAllocatesNothing(t *testing.T) {
	for _, c := range packets {
		if c.first>>4 != 3 && c.first>>4 != 4 {
			continue
		}
		b := framed(c.first, raw(t, c.body))
		var d packet.Decoder
		var p packet.Packet
		dst := make([]byte, 0, 1024)
		if n := testing.AllocsPerRun(100, func() {
			d.Reset()
			if _, err := d.Decode(b, c.v, 0, &p); err != nil {
				t.Fatal(err)
			}
			dst = packet.Append(dst[:0], c.v, &p, 0)
		}); n != 0 {
			t.Errorf("%s: %v allocations", c.name, n)
		}
	}
}

func TestPublishSizeIsExact(t *testing.T) {
	m := &mqtt.Message{Topic: []byte("a/b"), Properties: raw(t, "0101"), Expiry: 9, HasExpiry: true}
	for _, payload := range []int{0, 100, 116, 130, 16370, 16400, 2097152} {
		m.Payload = make([]byte, payload)
		for _, v := range []packet.Version{packet.V311, packet.V5} {
			for _, d := range []packet.Delivery{
				{},
				{QoS: 1, PacketID: 3, Dup: true},
				{QoS: 2, PacketID: 3, SubscriptionIDs: []uint32{1, 300, 268435455}, TopicAlias: 4, HasTopicAlias: true},
				{TopicAlias: 4, HasTopicAlias: true, OmitTopic: true},
			} {
				if got, want := packet.PublishSize(v, m, d), len(packet.AppendPublish(nil, v, m, d)); got != want {
					t.Errorf("PublishSize = %d, appended %d", got, want)
				}
			}
		}
	}
}

// What has to go first is said by [MQTT-3.2.2-19], [MQTT-3.4.2-2] and
// [MQTT-3.14.2-3].
func TestAppendFitsMaximumPacketSize(t *testing.T) {
	user := raw(t, "26 ~'key' ~'value'")
	long := strings.Repeat("r", 300)
	for name, p := range map[string]*packet.Packet{
		"connack":    {Type: packet.CONNACK, Connack: &packet.Connack{Reason: mqtt.NotAuthorized, ReasonString: long, UserProperties: user}},
		"puback":     {Type: packet.PUBACK, Ack: packet.Ack{PacketID: 1, Reason: mqtt.NotAuthorized, ReasonString: []byte(long), UserProperties: user}},
		"suback":     {Type: packet.SUBACK, Suback: &packet.Suback{PacketID: 1, Reasons: []mqtt.ReasonCode{0}, ReasonString: long, UserProperties: user}},
		"disconnect": {Type: packet.DISCONNECT, Disconnect: &packet.Disconnect{Reason: mqtt.ServerBusy, ReasonString: long, UserProperties: user}},
		"auth":       {Type: packet.AUTH, Auth: &packet.Auth{Reason: mqtt.ContinueAuthentication, HasMethod: true, Method: "m", ReasonString: long, UserProperties: user}},
	} {
		whole := packet.Append(nil, packet.V5, p, 0)
		noUser := packet.Append(nil, packet.V5, p, len(whole)-1)
		if len(noUser) != len(whole)-len(user) {
			t.Errorf("%s: without user properties %d bytes of %d", name, len(noUser), len(whole))
		}
		bare := packet.Append(nil, packet.V5, p, len(noUser)-1)
		if len(bare) > 20 || len(bare) == 0 {
			t.Errorf("%s: bare it has %d bytes", name, len(bare))
		}
		if got := packet.Append([]byte("x"), packet.V5, p, len(bare)-1); string(got) != "x" {
			t.Errorf("%s: does not fit, but appended % X", name, got[1:])
		}
	}
}

func TestConnackOf3(t *testing.T) {
	for reason, code := range map[mqtt.ReasonCode]byte{
		mqtt.Success: 0, mqtt.UnsupportedProtocolVersion: 1, mqtt.ClientIdentifierNotValid: 2, mqtt.ServerUnavailable: 3,
		mqtt.BadUserNameOrPassword: 4, mqtt.NotAuthorized: 5, mqtt.Banned: 5, mqtt.QuotaExceeded: 3, mqtt.ServerBusy: 3,
	} {
		got := packet.AppendConnack(nil, packet.V311, &packet.Connack{Reason: reason, SessionPresent: true}, 0)
		present := byte(0)
		if code == 0 {
			present = 1
		}
		if !bytes.Equal(got, []byte{0x20, 2, present, code}) {
			t.Errorf("%v: % X", reason, got)
		}
	}
	if got := packet.AppendConnack(nil, packet.V31, &packet.Connack{SessionPresent: true}, 0); got[2] != 0 {
		t.Errorf("3.1 has no session present: % X", got)
	}
}

func FuzzDecode(f *testing.F) {
	for _, c := range packets {
		f.Add(framed(c.first, raw(f, c.body)), byte(c.v))
	}
	f.Fuzz(func(t *testing.T, b []byte, v byte) {
		version := packet.Version(v)
		if version != 0 && (version < packet.V31 || version > packet.V5) {
			return
		}
		var d packet.Decoder
		var p packet.Packet
		n, err := d.Decode(b, version, 1<<20, &p)
		switch {
		case n < 0 || n > len(b):
			t.Fatalf("Decode = %d of %d", n, len(b))
		case err != nil && n > 0 && !errors.Is(err, mqtt.PayloadFormatInvalid):
			t.Fatalf("Decode = %d and %v", n, err)
		case n == 0:
			return
		}
		if allocs := testing.AllocsPerRun(1, func() { _, _ = d.Decode(b, version, 0, &p) }); int(allocs) > n+4 {
			t.Fatalf("%v allocations for %d bytes", allocs, n)
		}
		if p.Type == packet.CONNECT {
			version = p.Connect.Version
		}
		again(t, version, &p)
	})
}

func BenchmarkDecodePublish(b *testing.B) {
	in := framed(0x32, raw(b, "~'site/7/sensor/7' 0007 00 'a payload of thirty-two bytes....'"))
	var d packet.Decoder
	var p packet.Packet
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Decode(in, packet.V5, 0, &p); err != nil {
			b.Fatal(err)
		}
	}
}

// In 3.x every refused subscription has the return code 0x80 [MQTT-3.9.3-2 of 3.1.1].
func TestSubackOfOldVersions(t *testing.T) {
	p := packet.Suback{PacketID: 1, Reasons: []mqtt.ReasonCode{0, 2, mqtt.NotAuthorized, mqtt.QuotaExceeded}}
	for _, v := range []packet.Version{packet.V31, packet.V311} {
		if got := packet.AppendSuback(nil, v, &p, 0); !bytes.Equal(got, []byte{0x90, 6, 0, 1, 0, 2, 0x80, 0x80}) {
			t.Errorf("%s: % X", v, got)
		}
	}
}
