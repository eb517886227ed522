// SPDX-License-Identifier: Apache-2.0

package conform

import (
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestRandomBytes throws random bytes at every port of every process, also
// behind TLS and behind beginnings that are right. No process ends, none grows,
// and a client is served afterwards.
func TestRandomBytes(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the product; not in short runs")
	}
	for name, layout := range map[string][]string{"one process": nil, "processes": {"--brokers", "1", "--gateways", "1", "--no-restart"}} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"--anonymous", "junk", "--data", t.TempDir(), "--listen-offset", Offset(t), "--log-level", "error"}, layout...)
			p := Start(t, Programs(t, built), args...)
			throwJunk(t, p, 30) // what a process allocates once is not growth
			before := residents(t, p)
			throwJunk(t, p, 300)
			deadline := time.Now().Add(20 * time.Second)
			for {
				grown := ""
				for name, rss := range residents(t, p) {
					if rss > before[name]+64<<20 {
						grown += fmt.Sprintf("%s grew from %d to %d MiB; ", name, before[name]>>20, rss>>20)
					}
				}
				if grown == "" {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal(grown)
				}
				time.Sleep(200 * time.Millisecond)
			}
			c, _, err := Connect(p.Of("gateway")[0].Addr("mqtt"), "after", "", "", true)
			if err != nil {
				t.Fatalf("a client afterwards: %v", err)
			}
			c.Disconnect()
		})
	}
}

// beginnings are first bytes with which a parser goes on.
var beginnings = []string{
	"", "\x10\x1e\x00\x04MQTT\x04\x02\x00\x3c", "\x10\xff\xff\xff\x7f\x00\x04MQTT\x05", "\x30\xff\xff\x03", "MLNK\x00\x01\x00\x00\x00\x00\x09gateway-1",
	"GET /mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n",
	"POST /v1/signup HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 999999\r\n\r\n{", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
	"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", "\r\n\r\n\x00\r\nQUIT\n", "CONNECT {",
}

// throwJunk opens n connections to each port, a few at a time.
func throwJunk(t *testing.T, p *Product, n int) {
	t.Helper()
	slots := make(chan struct{}, 16)
	var wg sync.WaitGroup
	for i := range p.Processes {
		proc := &p.Processes[i]
		for port := range proc.Ports {
			for k := range n {
				slots <- struct{}{}
				wg.Go(func() {
					defer func() { <-slots }()
					nc, err := net.DialTimeout("tcp", proc.Addr(port), 5*time.Second)
					if err != nil {
						t.Errorf("%s does not accept at %s: %v", proc.Name, port, err)
						return
					}
					defer func() { _ = nc.Close() }()
					_ = nc.SetDeadline(time.Now().Add(2 * time.Second))
					if k%2 == 1 && (port == "mqtts" || port == "wss" || port == "link") {
						nc = tls.Client(nc, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12})
					}
					junk := make([]byte, rand.IntN(8<<10))
					for j := range junk {
						junk[j] = byte(rand.Uint32())
					}
					_, _ = nc.Write(append([]byte(beginnings[k%len(beginnings)]), junk...))
					if k%4 == 0 {
						_, _ = nc.Read(make([]byte, 512)) // some wait for an answer
					}
				})
			}
		}
	}
	wg.Wait()
}

// residents is the memory of each process in bytes; a process that is gone
// fails the test.
func residents(t *testing.T, p *Product) map[string]int64 {
	t.Helper()
	out := map[string]int64{}
	for _, proc := range p.Processes {
		if err := syscall.Kill(proc.PID, 0); err != nil {
			t.Fatalf("%s has ended: %v", proc.Name, err)
		}
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", proc.PID))
		if err != nil {
			t.Skip("memory is read from /proc, which is not here")
		}
		pages, err := strconv.ParseInt(strings.Fields(string(text))[1], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		out[proc.Name] = pages * int64(os.Getpagesize())
	}
	return out
}
