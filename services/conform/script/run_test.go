// SPDX-License-Identifier: Apache-2.0

package script

import (
	"encoding/hex"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/services/conform/wire"
)

// broken is a server that answers the first bytes of every connection with the
// same bytes, and closes it if they end with "end".
func broken(t *testing.T, answer string) string {
	t.Helper()
	answer, end := strings.CutSuffix(answer, "end")
	b, err := hex.DecodeString(strings.ReplaceAll(answer, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				in := make([]byte, 4096)
				if _, err := conn.Read(in); err != nil {
					return
				}
				_, _ = conn.Write(b)
				for !end {
					if _, err := conn.Read(in); err != nil {
						return
					}
				}
			}()
		}
	}()
	return ln.Addr().String()
}

// TestRun_Failures: what a broken server does is seen, at the right line and with
// the right statement.
func TestRun_Failures(t *testing.T) {
	const accepted = "20 03 00 00 00"
	for _, c := range []struct {
		steps, answer string
		line          int
		got           string
		statement     string
	}{
		{"a connect", "end", 4, "the end of the connection", "MQTT-3.12.4-1 of 5.0"},
		{"a connect", "", 4, "nothing within 200ms", "MQTT-3.12.4-1 of 5.0"},
		{"a connect", "20 03 00 87 00", 4, "connack code=0x87: code is 0x87, expected 0", "MQTT-3.12.4-1"},
		{"a connect", "D0 00", 4, "pingresp", "MQTT-3.2.0-1 of 5.0"},
		{"a connect", "E0 00", 4, "disconnect code=0x00", "MQTT-3.14.0-1 of 5.0"},
		{"a connect", "20 03 02 00 00", 4, "malformed connack", "MQTT-3.2.2-1 of 5.0"},
		{"a connect", "20 03 01 87 00", 4, "connack present=1", "MQTT-3.2.2-6 of 5.0"},
		{"a connect\n# An answer [MQTT-3.3.4-1].\na ping", accepted, 6, "nothing within 200ms", "MQTT-3.3.4-1 of 5.0"},
		{"a connect\na quiet", accepted + "D0 00", 5, "pingresp", "MQTT-3.12.4-1"},
		{"a connect\na quiet", accepted + "end", 5, "the end of the connection", "MQTT-3.12.4-1"},
		{"a connect\na < end", accepted, 5, "an open connection after 200ms", "MQTT-3.12.4-1"},
		{"a connect\na < end 0x82", accepted + "E0 01 81 end", 5, "code is 0x81, expected 0x82", "MQTT-3.12.4-1"},
		{"a connect\na < end after=1s", accepted + "end", 5, "it after ", "MQTT-3.12.4-1"},
		{"a connect\na < publish t x\na < publish t y", accepted + "30 05 0001 74 00 78 30 05 0001 74 00 7A", 6, "payload is z, expected y", "MQTT-3.12.4-1"},
		{"a connect\na <~ publish t x\na <~ publish t y", accepted + "30 05 0001 74 00 79", 5, "nothing within", "MQTT-3.12.4-1"},
		{"a connect\na < publish t x", accepted + "30 08 0001 74 03 23 0001 78", 5, "alias=1", "MQTT-3.1.2-27 of 5.0"},
		{"a connect aliasmax=9\na < publish t x alias=*", accepted + "30 07 0000 03 23 0001 78", 5, "alias=1", "MQTT-3.3.2-7 of 5.0"},
		{"a connect maxpacket=6\na < publish t x", accepted + "30 05 0001 74 00 78", 5, "publish", "MQTT-3.1.2-24 of 5.0"},
		{"a connect receive=1\na < publish t x qos=1\na < publish t y qos=1", accepted + "32 07 0001 74 0001 00 78 32 07 0001 74 0002 00 79", 6, "publish", "MQTT-3.3.4-9 of 5.0"},
		{"a connect\na < publish t x qos=1\na < publish t y qos=1", accepted + "32 07 0001 74 0001 00 78 32 07 0001 74 0001 00 79", 6, "publish", "MQTT-2.2.1-4 of 5.0"},
		{"a connect\na < publish t x qos=1 id=$a\na < publish t y qos=1 id=$a", accepted + "32 07 0001 74 0001 00 78 32 07 0001 74 0002 00 79", 6, "id is 2, expected 1", "MQTT-3.12.4-1"},
		{"a connect problem=0\na < suback 0x87 id=1", accepted + "90 08 0001 04 1F 0001 78 87", 5, "suback", "MQTT-3.1.2-29 of 5.0"},
		{"a connect\na < connack", accepted + accepted, 5, "connack", "MQTT-3.2.0-2 of 5.0"},
		{"a connect\na < auth 0x18", accepted + "F0 01 18", 5, "auth", "MQTT-4.12.0-6 of 5.0"},
		{"a connect", "20 07 00 00 04 1A 0001 78", 4, "responseinfo", "MQTT-3.1.2-28 of 5.0"},
		{"a connect\na disconnect\na ping", accepted + "end", 6, "none: this client has no connection", "MQTT-3.12.4-1"},
		// What no step has expected is seen at the end.
		{"a connect", accepted + "30 05 0001 74 00 78", 4, "publish", "MQTT-3.12.4-1"},
	} {
		text := "script one: One.\non 5\ncites MQTT-3.12.4-1 of 5.0\n" + c.steps + "\n"
		scripts, err := Parse("test.txt", text)
		if err != nil {
			t.Fatal(err)
		}
		results, err := Run(t.Context(), scripts, &Options{
			Broker: broken(t, c.answer), RunID: "t", Timeout: 200 * time.Millisecond, Quiet: 200 * time.Millisecond,
		})
		if err != nil || len(results) != 1 {
			t.Fatal(results, err)
		}
		f := results[0].Failure
		switch {
		case f == nil:
			t.Errorf("%q passes with %s", c.steps, c.answer)
		case f.Line != c.line || !strings.Contains(f.Got, c.got) || len(f.Statements) == 0 || !strings.HasPrefix(f.Statements[0], c.statement):
			t.Errorf("%q with %s: line %d, got %q, %q; want line %d, %q, %s", c.steps, c.answer, f.Line, f.Got, f.Statements, c.line, c.got, c.statement)
		}
	}
}

// TestRun_Passes: what is allowed passes.
func TestRun_Passes(t *testing.T) {
	const accepted = "20 03 00 00 00"
	for _, c := range []struct{ steps, answer string }{
		{"a > connect\na < connack 0x80..0xFF or end", "end"},
		{"a > connect\na < connack 0x80..0xFF or end\na < end", "20 03 00 87 00 end"},
		{"a > connect\na <? connack 0x87\na < end", "end"},
		{"a > connect\na <? connack 0x87\na < end", "20 03 00 87 00 end"},
		{"a connect\na < end 0x81|0x82 within=1s", accepted + "E0 01 82 end"},
		{"a connect\na < end 0x81", accepted + "end"},
		{"a connect\na <~ publish t x\na <~ publish t y\na < end", accepted + "30 05 0001 74 00 79 30 05 0001 74 00 78 end"},
		{"a connect\na <+ publish t x\na < end", accepted + "30 05 0001 74 00 79 30 05 0001 74 00 78 end"},
		{"a connect\na copies t x subid=2 subid=3\na < end", accepted + "30 09 0001 74 04 0B03 0B02 78 end"},
		{"a connect\na copies t x subid=2 subid=3\na < end", accepted + "30 07 0001 74 02 0B03 78 30 07 0001 74 02 0B02 78 end"},
		{"a connect\na quiet\na drop", accepted},
		{"wait 1ms\na connect present=0 keep\na drop", accepted},
	} {
		scripts, err := Parse("test.txt", "script one: One.\non 5\ncites MQTT-3.12.4-1 of 5.0\n"+c.steps+"\n")
		if err != nil {
			t.Fatal(err)
		}
		results, err := Run(t.Context(), scripts, &Options{
			Broker: broken(t, c.answer), RunID: "t", Timeout: 300 * time.Millisecond, Quiet: 50 * time.Millisecond,
		})
		if err != nil || results[0].Failure != nil {
			t.Errorf("%q with %s: %v, %+v", c.steps, c.answer, err, results)
		}
	}
}

func TestRun_Options(t *testing.T) {
	for _, o := range []*Options{
		{Broker: "127.0.0.1", RunID: "t"},
		{Broker: "127.0.0.1:1", RunID: "T!"},
		{Broker: "127.0.0.1:1", RunID: "toolong"},
	} {
		if _, err := Run(t.Context(), nil, o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
	if v, err := Version("3.1.1"); v != wire.V311 || err != nil {
		t.Error(v, err)
	}
	if _, err := Version("4"); err == nil {
		t.Error("version 4 was taken")
	}
}
