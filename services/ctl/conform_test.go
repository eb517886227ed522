// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"encoding/json"
	"net"
	"strings"
	"testing"

	"github.com/manormq/manor/services/conform/script"
)

// pinging is the least broker of 3.1.1: it accepts everybody and answers pings,
// unless it is mute.
func pinging(t *testing.T, mute bool) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	serve := func(conn net.Conn) {
		defer conn.Close()
		b := make([]byte, 4096)
		answer := []byte{0x20, 2, 0, 0}
		for {
			n, err := conn.Read(b)
			if err != nil || mute {
				return
			}
			for range max(1, n/2*int(answer[0]>>7)) {
				_, _ = conn.Write(answer)
			}
			answer = []byte{0xD0, 0}
		}
	}
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go serve(conn)
		}
	}()
	return ln.Addr().String()
}

func TestConform(t *testing.T) {
	const one = " --run ^malformed/ping$ --mqtt 3.1.1 --timeout 500ms"
	good, bad := "conform --broker "+pinging(t, false)+one, "conform --broker "+pinging(t, true)+one
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"conform --help", 0, "--ws-path"},
		{good, 0, "ok    3.1.1  malformed/ping: PINGREQ is answered with PINGRESP.\n1 ok, 0 failed, 0 skipped\n"},
		{bad, 1, "FAIL  3.1.1  malformed/ping: PINGREQ is answered with PINGRESP.\n      malformed.txt:7: a connect\n      expected connack code=0\n      got      the end of the connection\n      MQTT-3.12.4-1 of 3.1.1: "},
		{bad + " -v", 1, " a > connect "},
		{good + " --ws", 1, "FAIL"},
		{good + " --mqtt 4", 2, "--mqtt"},
		{good + " --run (", 2, "--run"},
		{good + " --run ^none$", 2, "no script ran"},
		{good + " --insecure", 2, "expected --tls"},
		{good + " --tls --ca /nowhere", 2, "--ca"},
		{good + " --tls --ca conform.go", 2, "no certificate"},
		{good + " --tls --insecure", 2, "connect to"},
		{"conform --broker nowhere", 2, "expected host:port"},
		{"conform now", 2, "unknown command"},
	} {
		out, code := run(strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("manor %s: exit code %d, want %d with %q in\n%s", c.args, code, c.code, c.want, out)
		}
	}
	for _, flag := range []string{" --json", " -o json"} {
		out, code := run(strings.Fields(bad + flag)...)
		var r script.Result
		if err := json.NewDecoder(strings.NewReader(out)).Decode(&r); err != nil || code != 1 || r.Script != "malformed/ping" || r.MQTT != "3.1.1" || r.Failure == nil || r.Failure.Line != 7 {
			t.Errorf("%s: %v, exit code %d\n%s", flag, err, code, out)
		}
	}
}
