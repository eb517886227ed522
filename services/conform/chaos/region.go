// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/manormq/manor/services/conform"
)

// Layout is where the processes of a region run.
type Layout struct {
	// Spread has each in a network namespace of its own, where that is allowed.
	Spread bool
	// Offset is the --listen-offset of manor dev; empty takes one whose ports seem
	// free.
	Offset string
}

// Region is a running region of processes. Its methods may be called
// concurrently for different nodes.
type Region struct {
	Nodes []*Node

	t       testing.TB
	network *network // nil on loopback
}

// Node is one process of a region, running or not.
type Node struct {
	conform.Process

	t        testing.TB
	host     string // its IP address
	argv     []string
	log      *os.File
	cmd      *exec.Cmd
	ended    chan struct{} // closed when cmd has ended, after err is set
	err      error
	brittle  sync.Mutex // held while cmd changes
	prefix   []string   // of argv: what brings it into its namespace
	expected bool       // guarded by brittle: its end was asked for
}

// New makes a region with the programs in bin and the layout that args of
// manor dev say, and starts it. manor dev writes configuration, certificates and
// the anonymous tenant; from then on the processes are the test's own.
func New(t testing.TB, bin string, where Layout, args ...string) *Region {
	t.Helper()
	dir := t.TempDir()
	args = append([]string{"--data", dir, "--listen-offset", cmp.Or(where.Offset, conform.Offset(t)), "--log-level", cmp.Or(os.Getenv("CHAOS_LOG_LEVEL"), "warn")}, args...)
	p := conform.Start(t, bin, args...)
	r := &Region{t: t}
	for _, process := range p.Processes {
		argv, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", process.PID))
		if err != nil {
			t.Fatal(err)
		}
		log, err := os.Create(filepath.Join(dir, process.Name+".log"))
		if err != nil {
			t.Fatal(err)
		}
		n := &Node{Process: process, t: t, host: "127.0.0.1", log: log, argv: strings.Split(strings.TrimRight(string(argv), "\x00"), "\x00")}
		r.Nodes = append(r.Nodes, n)
	}
	p.Stop()
	if where.Spread {
		r.network = newNetwork(t, r.Nodes)
	}
	t.Cleanup(r.close)
	for _, n := range r.Nodes {
		n.Start()
	}
	for _, n := range r.Nodes {
		n.Ready(30 * time.Second)
	}
	if t.Failed() {
		t.FailNow()
	}
	return r
}

// close kills what runs, and shows what the processes said if the test failed.
func (r *Region) close() {
	for _, n := range r.Nodes {
		n.Kill()
		_ = n.log.Close()
	}
	if dir := os.Getenv("CHAOS_LOGS"); dir != "" {
		for _, n := range r.Nodes {
			if text, err := os.ReadFile(n.log.Name()); err == nil {
				_ = os.WriteFile(filepath.Join(dir, filepath.Base(n.log.Name())), text, 0o600)
			}
		}
	}
}

// profile has the brokers profiled for a while, into the folder CHAOS_LOGS, if there is
// one. The function that it returns waits for that.
func (r *Region) profile(d time.Duration) (wait func()) {
	var wg sync.WaitGroup
	dir := os.Getenv("CHAOS_LOGS")
	for _, n := range r.Of("broker") {
		for _, kind := range []string{"profile", "trace"} {
			if dir == "" {
				continue
			}
			wg.Go(func() {
				resp, err := http.Get("http://" + n.Addr("operator") + "/debug/pprof/" + kind + "?seconds=" + strconv.Itoa(int(d.Seconds())))
				if err != nil {
					n.t.Log(err)
					return
				}
				defer func() { _ = resp.Body.Close() }()
				b, err := io.ReadAll(resp.Body)
				if err == nil {
					err = os.WriteFile(filepath.Join(dir, n.Name+"."+kind), b, 0o600)
				}
				if err != nil {
					n.t.Log(err)
				}
			})
		}
	}
	return wg.Wait
}

// Of returns the nodes of a role: nats, broker, tenancy or gateway.
func (r *Region) Of(role string) (found []*Node) {
	for _, n := range r.Nodes {
		if n.Role == role {
			found = append(found, n)
		}
	}
	return found
}

// Addrs are the plain MQTT listeners.
func (r *Region) Addrs() (all []string) {
	for _, n := range r.Of("gateway") {
		all = append(all, n.Addr("mqtt"))
	}
	return all
}

// Addr is the address of one of the node's ports.
func (n *Node) Addr(port string) string {
	return net.JoinHostPort(n.host, strconv.Itoa(n.Ports[port]))
}

// Start starts the process; Ready waits for it.
func (n *Node) Start() {
	n.brittle.Lock()
	defer n.brittle.Unlock()
	argv := append(append([]string(nil), n.prefix...), n.argv...)
	n.cmd = exec.Command(argv[0], argv[1:]...)
	n.cmd.Stdout, n.cmd.Stderr, n.cmd.SysProcAttr = n.log, n.log, conform.NoOrphan()
	n.ended, n.expected = make(chan struct{}), false
	cmd, ended := n.cmd, n.ended
	if err := cmd.Start(); err != nil {
		n.t.Errorf("%s: %v", n.Name, err)
		close(ended)
		return
	}
	go func() {
		err := cmd.Wait()
		n.brittle.Lock()
		defer n.brittle.Unlock()
		n.err = err
		if !n.expected {
			n.t.Errorf("%s ended by itself: %v\n%s", n.Name, err, n.tail())
		}
		close(ended)
	}()
}

// end signals the process and waits up to limit for its end.
func (n *Node) end(signal syscall.Signal, limit time.Duration) error {
	n.brittle.Lock()
	cmd, ended := n.cmd, n.ended
	n.expected = true
	n.brittle.Unlock()
	if cmd == nil || cmd.Process == nil {
		return nil
	}
	select {
	case <-ended:
		return nil
	default:
	}
	_ = cmd.Process.Signal(signal)
	select {
	case <-ended:
		return n.err
	case <-time.After(limit):
		_ = cmd.Process.Signal(syscall.SIGQUIT) // Go writes its stacks
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
		return fmt.Errorf("it did not end within %v", limit)
	}
}

// Signal sends a signal to the process, which runs.
func (n *Node) Signal(s syscall.Signal) {
	n.brittle.Lock()
	defer n.brittle.Unlock()
	if err := n.cmd.Process.Signal(s); err != nil {
		n.t.Error(err)
	}
}

// Kill is kill -9.
func (n *Node) Kill() { _ = n.end(syscall.SIGKILL, 10*time.Second) }

// Stop stops the process in order, which must take no longer than 30 s and end
// without an error.
func (n *Node) Stop() {
	if err := n.end(syscall.SIGTERM, 30*time.Second); err != nil {
		n.t.Errorf("%s did not stop in order: %v", n.Name, err)
	}
}

// Wipe deletes what the process keeps, all but its configuration. It must not
// run.
func (n *Node) Wipe() {
	entries, err := os.ReadDir(n.Data)
	if err != nil {
		n.t.Error(err)
	}
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".yaml" {
			if err := os.RemoveAll(filepath.Join(n.Data, e.Name())); err != nil {
				n.t.Error(err)
			}
		}
	}
}

// Ready waits until the process says that it is well: a NATS server, that it and
// the others have agreed on who leads.
func (n *Node) Ready(limit time.Duration) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), limit)
	defer cancel()
	err := poll(ctx, func() error {
		if n.Ports["operator"] != 0 {
			_, err := n.get(ctx, "/health")
			return err
		}
		return n.elected(ctx)
	})
	if err != nil {
		n.t.Errorf("%s is not well after %v: %v\n%s", n.Name, limit, err, n.tail())
	}
}

// tail is the end of what the process said.
func (n *Node) tail() string {
	text, _ := os.ReadFile(n.log.Name())
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-20):], []byte("\n")))
}

// poll calls f until it returns nil, and returns its last error when ctx ends.
func poll(ctx context.Context, f func() error) error {
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		}
	}
}
