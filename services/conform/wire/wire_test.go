// SPDX-License-Identifier: Apache-2.0

package wire_test

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/manormq/manor/services/conform/wire"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func fields(kind wire.Kind, pairs ...string) *wire.Packet {
	p := &wire.Packet{Kind: kind}
	for i := 0; i < len(pairs); i += 2 {
		p.Fields = append(p.Fields, wire.Field{Name: pairs[i], Value: pairs[i+1]})
	}
	return p
}

// TestAppend compares with bytes that were written by hand from the
// specifications.
func TestAppend(t *testing.T) {
	for _, c := range []struct {
		v    wire.Version
		p    *wire.Packet
		want string
	}{
		{wire.V31, fields(wire.Connect, "clean", "1", "keepalive", "60", "id", "a"), "10 0F 0006 4D5149736470 03 02 003C 0001 61"},
		{
			wire.V311, fields(wire.Connect, "id", "a", "username", "u", "password", "p", "will.topic", "w", "will.payload", "x", "will.qos", "1", "will.retain", "1"),
			"10 19 0004 4D515454 04 EC 0000 0001 61 0001 77 0001 78 0001 75 0001 70",
		},
		{wire.V5, fields(wire.Connect, "id", "a", "session", "5", "will.topic", "w", "will.delay", "1"), "10 1E 0004 4D515454 05 04 0000 05 11 00000005 0001 61 05 18 00000001 0001 77 0000"},
		{wire.V311, fields(wire.Publish, "topic", "t", "payload", "x"), "30 04 0001 74 78"},
		{wire.V311, fields(wire.Publish, "topic", "t", "qos", "1", "id", "258", "dup", "1", "retain", "1"), "3B 05 0001 74 0102"},
		{wire.V5, fields(wire.Publish, "topic", "t", "subid", "128", "user", "a:b:c"), "30 10 0001 74 0C 0B 8001 26 0001 61 0003 623A63"},
		{wire.V5, fields(wire.Puback, "id", "1"), "40 02 0001"},
		{wire.V5, fields(wire.Pubrec, "id", "1", "code", "0x87"), "50 04 0001 87 00"},
		{wire.V311, fields(wire.Pubrel, "id", "1"), "62 02 0001"},
		{wire.V311, fields(wire.Pubrel, "id", "1", "flags", "0"), "60 02 0001"},
		{wire.V311, fields(wire.Subscribe, "id", "1", "filter", "a", "qos", "1", "filter", "b"), "82 0A 0001 0001 61 01 0001 62 00"},
		{wire.V5, fields(wire.Subscribe, "id", "1", "filter", "a", "qos", "1", "nolocal", "1", "rap", "1", "rh", "2"), "82 07 0001 00 0001 61 2D"},
		{wire.V5, fields(wire.Unsubscribe, "id", "1", "filter", "a"), "A2 06 0001 00 0001 61"},
		{wire.V311, fields(wire.Pingreq), "C0 00"},
		{wire.V5, fields(wire.Disconnect), "E0 00"},
		{wire.V5, fields(wire.Disconnect, "code", "4", "session", "9"), "E0 07 04 05 11 00000009"},
		{wire.V5, fields(wire.Auth, "code", "0x18", "method", "m"), "F0 06 18 04 15 0001 6D"},
	} {
		got, err := wire.Append(nil, c.v, c.p)
		if err != nil || !bytes.Equal(got, unhex(t, c.want)) {
			t.Errorf("%s of %s is % X (%v), want %s", c.p, c.v, got, err, c.want)
		}
	}
	for _, c := range []struct {
		v    wire.Version
		p    *wire.Packet
		want string
	}{
		{wire.V311, fields(wire.Publish, "topic", "t", "expiry", "1"), "has no field expiry"},
		{wire.V5, fields(wire.Publish, "session", "1"), "publish has no field session"},
		{wire.V5, fields(wire.Puback, "id", "one"), "no number"},
	} {
		if _, err := wire.Append(nil, c.v, c.p); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error with %q", c.p, err, c.want)
		}
	}
}

func TestRead(t *testing.T) {
	for _, c := range []struct {
		v          wire.Version
		bytes, say string
	}{
		{wire.V31, "20 02 00 00", "connack code=0x00"},
		{wire.V311, "20 02 01 00", "connack present=1 code=0x00"},
		{wire.V5, "20 06 00 00 03 21 0014", "connack code=0x00 receive=20"},
		// A level that the server does not know, answered as 3.1.1 has it.
		{wire.V5, "20 02 00 01", "connack code=0x01"},
		{wire.V311, "3B 06 0001 74 0102 78", "publish dup=1 qos=1 retain=1 topic=t id=258 payload=x"},
		{wire.V5, "30 0B 0001 74 06 0B 8001 0B 7F 00", ""}, // an unknown property
		{wire.V5, "30 0A 0001 74 05 0B 8001 0B 7F 78", "publish qos=0 topic=t subid=128 subid=127 payload=x"},
		{wire.V5, "40 02 0001", "puback id=1 code=0x00"},
		{wire.V5, "40 03 0001 10", "puback id=1 code=0x10"},
		{wire.V5, "70 08 0001 92 04 1F 0001 61", "pubcomp id=1 code=0x92 reason=a"},
		{wire.V31, "6A 02 0001", "pubrel id=1"},
		{wire.V311, "90 04 0001 00 80", "suback id=1 code=0x00 code=0x80"},
		{wire.V5, "B0 04 0001 00 11", "unsuback id=1 code=0x11"},
		{wire.V311, "B0 02 0001", "unsuback id=1"},
		{wire.V311, "D0 00", "pingresp"},
		{wire.V5, "E0 00", "disconnect code=0x00"},
		{wire.V5, "E0 01 8E", "disconnect code=0x8E"},
	} {
		p, err := wire.Read(bufio.NewReader(bytes.NewReader(unhex(t, c.bytes))), c.v)
		switch {
		case c.say == "" && err == nil:
			t.Errorf("%s: %s, want an error", c.bytes, p)
		case c.say != "" && (err != nil || p.String() != c.say):
			t.Errorf("%s: %s (%v), want %s", c.bytes, p, err, c.say)
		}
	}
}

// TestRead_Malformed: what a server must not send.
func TestRead_Malformed(t *testing.T) {
	for _, c := range []struct {
		v           wire.Version
		bytes, want string
	}{
		{wire.V311, "D1 00", "2.1.3-1"},
		{wire.V311, "60 02 0001", "2.1.3-1"},
		{wire.V311, "D0 8000", "1.5.5-1"},
		{wire.V311, "D0 FFFFFFFF01", "longer than 4 bytes"},
		{wire.V311, "D0 01 00", "left over"},
		{wire.V311, "20 02 02 00", "3.2.2-1"},
		{wire.V311, "20 02 00 06", "3.2.2-8"},
		{wire.V5, "20 03 00 03 00", "3.2.2-8"},
		{wire.V5, "20 09 00 00 06 21 0014 21 0014", "receive stands twice"},
		{wire.V5, "20 06 00 00 03 21 0000", "receive is 0"},
		{wire.V5, "20 05 00 00 02 24 02", "maxqos is 2"},
		{wire.V5, "20 08 00 00 05 02 00000001", "property 0x02"},
		{wire.V311, "36 06 0001 74 0001 78", "3.3.1-4"},
		{wire.V311, "38 04 0001 74 78", "3.3.1-2"},
		{wire.V311, "32 05 0001 74 0000", "2.2.1-4"},
		{wire.V311, "30 03 0001 2B", "3.3.2-2"},
		{wire.V311, "30 04 0002 C328", "1.5.4-1"},
		{wire.V311, "30 03 0001 00", "1.5.4-2"},
		{wire.V311, "30 02 0001", "ends too early"},
		{wire.V5, "30 03 0000 00", "4.7.3-1"},
		{wire.V5, "30 08 0001 74 03 23 0000 78", "3.3.2-8"},
		{wire.V5, "30 04 0001 74 05", "longer than the packet"},
		{wire.V5, "30 0A 0001 74 06 0B 80808080 01", "longer than 4 bytes"},
		{wire.V5, "40 03 0001 11", "3.4.2-1"},
		{wire.V31, "90 03 0001 80", "3.9.3-2"},
		{wire.V5, "E0 07 8E 05 11 00000001", "3.14.2-2"},
		{wire.V311, "E0 00", "sends none"},
		{wire.V5, "10 00", "sends none"},
	} {
		var bad *wire.MalformedError
		p, err := wire.Read(bufio.NewReader(bytes.NewReader(unhex(t, c.bytes))), c.v)
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s of %s: %s, %v, want %q", c.bytes, c.v, p, err, c.want)
		}
	}
	if _, err := wire.Read(bufio.NewReader(bytes.NewReader([]byte{0x30, 9, 0})), wire.V311); err == nil || !strings.Contains(err.Error(), "unexpected EOF") {
		t.Errorf("half a packet: %v", err)
	}
}

// TestNames: every kind has a name, which is found again.
func TestNames(t *testing.T) {
	for k := wire.Connect; k <= wire.Auth; k++ {
		if wire.KindOf(k.String()) != k {
			t.Errorf("kind %d is called %q, which is kind %d", k, k, wire.KindOf(k.String()))
		}
	}
	if wire.KindOf("") != 0 || wire.KindOf("retain") != 0 {
		t.Error("a kind without a packet was found")
	}
}
