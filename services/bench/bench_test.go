// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/infra/errs"
)

// TestScenarios runs every scenario for a moment against mosquitto, which is a
// broker that others trust.
func TestScenarios(t *testing.T) {
	path, err := findMosquitto()
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	b, err := startMosquitto(t.Context(), path, "", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.stop)
	for name, args := range map[string]string{
		"pairs": "-n 5 -depth 16 -each 3", "fanin": "-n 5 -qos 1", "fanout": "-subs 20", "shared": "-n 3 -subs 4", "wild": "-n 2 -subs 300 -qos 2",
		"idle": "-n 50 -subs 1", "idle ws": "-n 5 -subs 1 -t ws", "offline": "-n 10 -msgs 20", "retained": "-topics 500", "storm": "-n 200",
		"pairs 5": "-n 5 -qos 2 -mqtt 5", "offline 5": "-n 10 -msgs 20 -mqtt 5", "pairs paced": "-n 5 -rate 500 -settle",
	} {
		scenario, _, _ := strings.Cut(name, " ")
		// One after the other: a scenario that fills mosquitto leaves another nothing.
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			addr := b.addrs[overTCP]
			if strings.Contains(args, "-t ws") {
				addr = b.addrs[overWS]
			}
			args := append([]string{"-s", scenario, "-addr", addr, "-pid", strconv.Itoa(b.pids[0]), "-dur", "300ms", "-warm", "200ms"}, strings.Fields(args)...)
			if err := Main(t.Context(), "", args, &out, &out); err != nil {
				t.Fatal(err, &out)
			}
			var res Result
			if err := json.Unmarshal(out.Bytes(), &res); err != nil {
				t.Fatal(err)
			}
			if res.Error != "" || res.Lost > 0 {
				t.Fatalf("%d lost, error %q", res.Lost, res.Error)
			}
			if scenario != "idle" && scenario != "storm" && res.Delivered == 0 {
				t.Errorf("nothing was delivered: %s", &out)
			}
			if scenario == "offline" && res.Delivered != 200 || scenario == "retained" && res.Delivered != 500*replays {
				t.Errorf("%d were delivered", res.Delivered)
			}
			if scenario == "idle" && (res.Extra["conns"] == 0 || res.Extra["connect_per_s"] == 0) {
				t.Errorf("nothing was measured: %s", &out)
			}
			if scenario == "storm" && (res.P99 == 0 || res.Extra["connects_per_s"] == 0) {
				t.Errorf("nothing was measured: %s", &out)
			}
		})
	}
}

func TestOptions_Validate(t *testing.T) {
	for args, want := range map[string]string{
		"-addr nowhere": "-addr", "-s nothing": "-s", "-qos 3": "-qos", "-size 4": "-size", "-n 0": "-n", "-mqtt 3": "-mqtt", "-depth 1": "-depth", "-each 0": "-each", "-s idle -n 0": "",
		"-addr broker.example:1883": "", "-addr [::1]:1883 -qos 2": "",
	} {
		var o Options
		fs := flag.NewFlagSet("", flag.ContinueOnError)
		o.Flags(fs)
		if err := fs.Parse(strings.Fields(args)); err != nil {
			t.Fatal(err)
		}
		err := o.Validate()
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
	}
	var out bytes.Buffer
	if err := Main(t.Context(), "", []string{"-pid", "x"}, &out, &out); err == nil {
		t.Error("-pid x was accepted")
	}
	if err := Main(t.Context(), "", []string{"-h"}, &out, &out); !errors.Is(err, flag.ErrHelp) || !strings.Contains(out.String(), "-inflight") {
		t.Errorf("-h: %v", err)
	}
}

// TestMain_FailsWithTheScenario refuses every connection.
func TestMain_FailsWithTheScenario(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = nc.Write([]byte{pktConnack, 2, 0, 5})
			_, _ = nc.Read(make([]byte, 1<<10))
			_ = nc.Close()
		}
	}()
	var out bytes.Buffer
	err = Main(t.Context(), "", []string{"-s", "pairs", "-n", "1", "-addr", ln.Addr().String(), "-dur", "10ms", "-warm", "1ms"}, &out, &out)
	var res Result
	if jerr := json.Unmarshal(out.Bytes(), &res); jerr != nil {
		t.Fatal(jerr)
	}
	const want = "not authorized (return code 5)"
	if !strings.Contains(res.Error, want) || err == nil || !strings.Contains(err.Error(), want) || errs.KindOf(err) == errs.Invalid {
		t.Errorf("got %v with %s, want %q", err, &out, want)
	}
}

func TestHistogram(t *testing.T) {
	var h histogram
	for i := range 1000 {
		h.add(int64(i) * 1000)
	}
	for q, want := range map[float64]time.Duration{.5: 500_000, .99: 990_000} {
		if got := h.quantile(q); got < want*95/100 || got > want*105/100 {
			t.Errorf("quantile %v is %v, want about %v", q, got, want)
		}
	}
	for v := range uint64(1 << 14) {
		if low := lowest(bucket(v)); low > v || v-low > v/32 {
			t.Fatalf("%d is counted as %d", v, low)
		}
	}
}

func TestPackets(t *testing.T) {
	payload := bytes.Repeat([]byte("p"), 300)
	for _, v := range []protocol{mqtt3, mqtt5} {
		testPublish(t, v, payload)
	}
	if rest := mqtt5.skipProperties([]byte{3, 1, 2, 3, 'x'}); string(rest) != "x" {
		t.Errorf("after the properties is %q", rest)
	}
	for _, b := range [][]byte{nil, {2, 1}, {0x80}} {
		if rest := mqtt5.skipProperties(b); rest != nil {
			t.Errorf("after the properties of % x is % x", b, rest)
		}
	}
}

func testPublish(t *testing.T, v protocol, payload []byte) {
	b, id, body := v.appendPublish(nil, "a/b", 2, true, payload)
	b[id+1] = 9
	c := &client{protocol: v, buf: b, w: len(b)}
	first, got, ok, err := c.packet()
	if err != nil || !ok || first != pktPublish|2<<1|1 {
		t.Fatalf("packet %#x, %v, %v", first, ok, err)
	}
	qos, pid, p := c.publish(first, got)
	if qos != 2 || pid != 9 || !bytes.Equal(p, payload) || !bytes.Equal(b[body:], payload) {
		t.Errorf("QoS %d, id %d, payload of %d bytes", qos, pid, len(p))
	}
	for cut := range len(b) {
		c := &client{buf: append([]byte(nil), b[:cut]...), w: cut}
		if _, _, ok, err := c.packet(); ok || err != nil {
			t.Fatalf("%d bytes of %d: %v, %v", cut, len(b), ok, err)
		}
	}
}
