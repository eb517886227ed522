// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/manormq/manor/infra/packet"
)

// idleClientsEnv makes the test binary a process of idle clients.
const idleClientsEnv = "MANOR_TEST_IDLE_CLIENTS"

func TestMain(m *testing.M) {
	if v := os.Getenv(idleClientsEnv); v != "" {
		if err := idleClients(v); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// idleClients connects "ADDRESS N" and keeps the connections until standard
// input ends.
func idleClients(what string) error {
	addr, count, _ := strings.Cut(what, " ")
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	conns := make([]net.Conn, n)
	for i := range conns {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return err
		}
		conns[i] = c
		p := hello("idle-" + strconv.Itoa(i))
		p.KeepAlive = 0
		if _, err := c.Write(packet.AppendConnect(nil, p)); err != nil {
			return err
		}
		b := make([]byte, 64)
		if k, err := c.Read(b); err != nil || k < 4 || b[0] != 0x20 || b[3] != 0 {
			return fmt.Errorf("connection %d: CONNACK % X, %w", i, b[:k], err)
		}
	}
	fmt.Println("connected")
	_, _ = io.Copy(io.Discard, os.Stdin)
	return nil
}

// rss is the resident memory of this process, after what is free was returned.
func rss(t *testing.T) int {
	t.Helper()
	runtime.GC()
	runtime.GC()
	debug.FreeOSMemory()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skip("resident memory is read from /proc")
	}
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte("VmRSS:")); ok {
			kib, err := strconv.Atoi(string(bytes.Fields(rest)[0]))
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

// idleBudget is what an idle connection may cost, in bytes: with event loops, and
// with a goroutine each.
func idleBudget() int {
	if runtime.GOOS == "linux" {
		return 3 << 10
	}
	return 12 << 10
}

// An idle connection without TLS costs the gateway at most idleBudget.
func TestIdleConnectionBudget(t *testing.T) {
	if testing.Short() || raceEnabled {
		t.Skip("opens 10,000 connections; the race detector has its own memory")
	}
	n := 10_000
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err == nil && lim.Cur < uint64(n+200) {
		n = int(lim.Cur) - 200
		t.Logf("only %d connections: the limit of open files is %d", n, lim.Cur)
	}
	w := start(t, nil)
	before := rss(t)
	clients := exec.Command(os.Args[0])
	clients.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d", idleClientsEnv, w.addr("mqtt"), n))
	in, err := clients.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := clients.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := clients.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = in.Close()
		_ = clients.Wait()
		w.eventually("no connection", func() bool { return w.gw.Connections() == 0 })
	}()
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "connected\n" {
		t.Fatalf("the clients say %q, %v", line, err)
	}
	if got := w.gw.Connections(); got != n {
		t.Fatalf("%d connections, expected %d", got, n)
	}
	// Stacks that grew while clients were let in are halved by each collection.
	for range 3 {
		runtime.GC()
		time.Sleep(10 * time.Millisecond)
	}
	each := (rss(t) - before) / n
	t.Logf("%d bytes for each of %d idle connections, the broker in the test included", each, n)
	if each > idleBudget() {
		t.Errorf("an idle connection costs %d bytes, expected at most %d", each, idleBudget())
	}
}
