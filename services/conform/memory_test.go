// SPDX-License-Identifier: Apache-2.0

package conform

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/manormq/manor/infra/packet"
)

// rss is the resident memory of all processes of the product that serve
// clients, in bytes.
func (p *Product) rss(t testing.TB) (total int64) {
	t.Helper()
	seen := map[int]bool{}
	for _, role := range []string{"gateway", "broker"} {
		for _, x := range p.Of(role) {
			if !seen[x.PID] {
				seen[x.PID] = true
				total += x.rss(t)
			}
		}
	}
	return total
}

func (p *Process) rss(t testing.TB) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.PID))
	if err != nil {
		t.Skipf("memory is measured through /proc, which is not here: %v", err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// collect makes the process collect its garbage: what lies about is up to the
// pace of the collector, not to the connections.
func (p *Process) collect(t testing.TB) {
	t.Helper()
	resp, err := http.Get("http://" + p.Addr("operator") + "/debug/pprof/heap?gc=1")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
}

// What an idle connection may cost, in bytes of resident memory.
const (
	idleGateway = 12 << 10
	idleBroker  = 1536
	idleCount   = 10_000
)

// TestIdleMemory opens 10,000 connections that do nothing, and compares the
// resident memory of gateway and broker before and after.
func TestIdleMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("opens 10,000 connections; not in short runs")
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Max < idleCount+1000 {
		if os.Getenv("CI") != "" {
			t.Fatalf("%d file descriptors are allowed, %d are needed", limit.Max, idleCount+1000)
		}
		t.Skipf("%d file descriptors are allowed, %d are needed: raise ulimit -n", limit.Max, idleCount+1000)
	}
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	p := Start(t, Programs(t, built), "--anonymous", "idle", "--data", t.TempDir(), "--listen-offset", Offset(t), "--brokers", "1", "--gateways", "1")
	gateway, broker := p.Of("gateway")[0], p.Of("broker")[0]
	open := func(from, to int) (conns []net.Conn) {
		for i := from; i < to; i++ {
			c, err := net.Dial("tcp", gateway.Addr("mqtt"))
			if err != nil {
				t.Fatal(err)
			}
			conns = append(conns, c)
			connect := packet.Connect{Version: packet.V311, ClientID: fmt.Sprint("idle-", i), CleanStart: true}
			if _, err := c.Write(packet.AppendConnect(nil, &connect)); err != nil {
				t.Fatal(err)
			}
			_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
			if _, err := c.Read(make([]byte, 4)); err != nil {
				t.Fatal(err)
			}
		}
		return conns
	}
	conns := open(0, 500) // what the first ones bring about is not theirs alone
	settle := func() (g, b int64) {
		time.Sleep(3 * time.Second) // buffers of the handshake are given back by then
		gateway.collect(t)
		broker.collect(t)
		return gateway.rss(t), broker.rss(t)
	}
	g0, b0 := settle()
	conns = append(conns, open(500, 500+idleCount)...)
	g1, b1 := settle()
	perGateway, perBroker := (g1-g0)/idleCount, (b1-b0)/idleCount
	t.Logf("an idle connection takes %d bytes at the gateway, %d at the broker", perGateway, perBroker)
	if perGateway > idleGateway {
		t.Errorf("an idle connection takes %d bytes at the gateway, %d are allowed", perGateway, idleGateway)
	}
	if perBroker > idleBroker {
		t.Errorf("an idle connection takes %d bytes at the broker, %d are allowed", perBroker, idleBroker)
	}
	for _, c := range conns {
		_ = c.Close()
	}
}
