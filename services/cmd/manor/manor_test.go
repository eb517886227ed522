// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/infra/node"
)

func TestAuthority(t *testing.T) {
	data := t.TempDir()
	a, err := openAuthority(data)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile, err := a.listeners()
	if err != nil {
		t.Fatal(err)
	}
	again, err := openAuthority(data)
	if err != nil {
		t.Fatal(err)
	}
	if !again.cert.Equal(a.cert) {
		t.Error("a second start has another CA")
	}
	before, _ := os.ReadFile(keyFile)
	if err := os.Remove(certFile); err != nil {
		t.Fatal(err)
	}
	if _, _, err := again.listeners(); err != nil {
		t.Fatal(err)
	}
	for _, tenant := range []string{"acme", "umbrella"} {
		if err := again.host(tenant); err != nil {
			t.Fatal(err)
		}
	}
	if after, _ := os.ReadFile(keyFile); !bytes.Equal(before, after) {
		t.Error("the key changed with the certificate")
	}
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	for _, name := range []string{"acme.localhost", "umbrella.localhost", "any.localhost", "localhost", "127.0.0.1"} {
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots}); err != nil {
			t.Errorf("the certificate is not for %s: %v", name, err)
		}
	}
	if got := pair.Leaf.DNSNames; len(got) != 2 {
		t.Errorf("every client sees the names %q, expected the domain and its wildcard", got)
	}
	own, err := tls.LoadX509KeyPair(filepath.Join(a.hosts, "acme.localhost.pem"), filepath.Join(a.hosts, "acme.localhost.key"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := own.Leaf.Verify(x509.VerifyOptions{Roots: roots}); err != nil || len(own.Leaf.DNSNames) != 1 || own.Leaf.DNSNames[0] != "acme.localhost" {
		t.Errorf("a tenant's certificate is for %q: %v", own.Leaf.DNSNames, err)
	}
	err = filepath.WalkDir(data, func(file string, d os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(file, ".key") {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, want 0600", file, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "ca.pem"), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openAuthority(data); err == nil || !strings.Contains(err.Error(), "remove it") {
		t.Errorf("a broken ca.pem: %v", err)
	}
}

func TestOptions_Validate(t *testing.T) {
	for want, o := range map[string]options{
		"":                              {bind: "127.0.0.1", anonymous: "bench"},
		" ":                             {bind: "0.0.0.0", brokers: 1, gateways: 2, offset: 1000},
		"loopback":                      {bind: "0.0.0.0", anonymous: "bench"},
		"--listen-offset":               {bind: "127.0.0.1", offset: 65000},
		"8883":                          {bind: "127.0.0.1", offset: 7000},
		"--bind":                        {bind: "nowhere"},
		"--anonymous":                   {bind: "127.0.0.1", anonymous: "NOT A TENANT"},
		"  ":                            {bind: "127.0.0.1", brokers: 9, gateways: 9, nats: 5, tenancies: 9, zones: 9, offset: mostOffset},
		"--brokers":                     {bind: "127.0.0.1", brokers: 10, gateways: 1},
		"--nats: expected 1, 3 or 5":    {bind: "127.0.0.1", brokers: 3, gateways: 1, nats: 2},
		"--nats: 3 servers need":        {bind: "127.0.0.1", nats: 3},
		"--zones: expected 0 (none) to": {bind: "127.0.0.1", brokers: 2, gateways: 1, zones: 3},
		"the number of brokers, 0":      {bind: "127.0.0.1", zones: 1},
		"--tenancies: expected 1 to":    {bind: "127.0.0.1", brokers: 1, gateways: 1, tenancies: 10},
		"--tenancies: 2 need processes": {bind: "127.0.0.1", tenancies: 2},
		"--gateways":                    {bind: "127.0.0.1", brokers: 1, gateways: 10},
		"both or neither":               {bind: "127.0.0.1", brokers: 1},
	} {
		err := o.validate()
		if strings.TrimSpace(want) == "" {
			if err != nil {
				t.Errorf("%+v: %v", o, err)
			}
		} else if err == nil || !strings.Contains(err.Error(), want) || node.ExitCode(err) != 2 {
			t.Errorf("%+v: %v, want %q", o, err, want)
		}
	}
}

// The line that scripts read, in its exact form.
func TestReport_JSON(t *testing.T) {
	o := &options{data: "d", bind: "127.0.0.1", offset: 1000, json: true}
	all := o.layout()
	all[0].PID = 4711
	var b bytes.Buffer
	if err := newReport(o, "d/ca.pem", all).write(&b, o, time.Second); err != nil {
		t.Fatal(err)
	}
	want := `{"api":"http://127.0.0.1:9080","operator":"http://127.0.0.1:9888","ca":"d/ca.pem",` +
		`"processes":[{"role":"all","name":"dev","pid":4711,"data":"d","ports":{"api":9080,"mqtt":2883,"mqtts":9883,"operator":9888,"ws":9083,"wss":9084}}]}` + "\n"
	if b.String() != want {
		t.Errorf("got  %s\nwant %s", &b, want)
	}
}

func TestLayout_Processes(t *testing.T) {
	o := &options{data: "d", bind: "127.0.0.1", brokers: 1, gateways: 2}
	got, err := json.Marshal(o.layout())
	if err != nil {
		t.Fatal(err)
	}
	want := `[{"role":"nats","name":"nats-1","pid":0,"data":"d/nats-1","ports":{"nats":4222}},` +
		`{"role":"broker","name":"broker-1","pid":0,"data":"d/broker-1","ports":{"link":44054,"operator":8888}},` +
		`{"role":"tenancy","name":"tenancy-1","pid":0,"data":"d/tenancy-1","ports":{"api":8080,"operator":8890}},` +
		`{"role":"gateway","name":"gateway-1","pid":0,"data":"d/gateway-1","ports":{"mqtt":1883,"mqtts":8883,"operator":8889,"ws":8083,"wss":8084}},` +
		`{"role":"gateway","name":"gateway-2","pid":0,"data":"d/gateway-2","ports":{"mqtt":1893,"mqtts":8893,"operator":8899,"ws":8093,"wss":8094}}]`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if r := newReport(o, "", o.layout()); r.Operator != "http://127.0.0.1:8888" || r.API != "http://127.0.0.1:8080" {
		t.Errorf("operator %s, API %s: want broker 1's and tenancy's", r.Operator, r.API)
	}
}

// What listens everywhere is reported where it can be reached.
func TestReport_BindToAll(t *testing.T) {
	for bind, want := range map[string]string{"0.0.0.0": "http://127.0.0.1:8080", "::": "http://[::1]:8080", "192.0.2.7": "http://192.0.2.7:8080"} {
		o := &options{data: "d", bind: bind}
		var b bytes.Buffer
		r := newReport(o, "d/ca.pem", o.layout())
		if err := r.write(&b, o, time.Second); err != nil {
			t.Fatal(err)
		}
		if r.API != want || strings.Contains(b.String(), "0.0.0.0") || strings.Contains(b.String(), "[::]") {
			t.Errorf("--bind %s: %s in\n%s", bind, r.API, &b)
		}
	}
}

func TestCheckPorts(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := ln.Addr().(*net.TCPAddr).Port
	all := []process{{Name: "broker-1", Ports: map[string]int{"link": port}}}
	if port < node.EphemeralPort {
		_ = ln.Close()
		t.Skip("this system takes ports elsewhere")
	}
	time.AfterFunc(100*time.Millisecond, func() { _ = ln.Close() })
	if err := (&options{}).checkPorts(t.Context(), all); err != nil {
		t.Errorf("a port that is free soon: %v", err)
	}
}

func TestReport_ExampleIsWhole(t *testing.T) {
	for _, o := range []*options{
		{data: "d", bind: "127.0.0.1", anonymous: "bench"},
		{data: "d", bind: "127.0.0.1", brokers: 1, gateways: 2},
	} {
		var b bytes.Buffer
		if err := newReport(o, "d/ca.pem", o.layout()).write(&b, o, time.Second); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(b.String(), "@") && strings.Contains(b.String(), "@MQTT") || !strings.Contains(b.String(), "-p 1883 ") || !strings.Contains(b.String(), "-p 8883 ") {
			t.Errorf("the example is not filled in:\n%s", &b)
		}
	}
}

// TestChild starts this test's binary as a process that listens, kills it, and
// sees it come back until it is stopped.
func TestChild(t *testing.T) {
	port := freePort(t)
	p := &process{Name: "listener-1", Ports: map[string]int{"mqtt": port}}
	pids := make(chan string, 16)
	c := &child{
		process: p, log: slog.New(slog.DiscardHandler), program: os.Args[0], args: []string{"-test.run", "^TestChildProcess$"},
		output: writerFunc(func(b []byte) { pids <- string(b) }),
	}
	t.Setenv("MANOR_TEST_LISTEN", p.local("mqtt"))
	part := c.part()
	if err := part.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	first := <-pids
	if err := killPID(first); err != nil {
		t.Fatal(err)
	}
	select {
	case second := <-pids:
		if second == first {
			t.Error("the same process again")
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the process was not started again")
	}
	if err := part.Drain(context.Background()); err != nil {
		t.Fatal(err)
	}
	if nc, err := net.Dial("tcp", p.local("mqtt")); err == nil {
		_ = nc.Close()
		t.Error("the process lives after its end")
	}
}

// TestChild_Retired: a process that says by its exit code that it is no node any more is not started
// again.
func TestChild_Retired(t *testing.T) {
	p := &process{Name: "listener-1", Ports: map[string]int{"mqtt": freePort(t)}}
	var said bytes.Buffer
	pids := make(chan string, 16)
	c := &child{
		process: p, log: slog.New(slog.NewTextHandler(&said, nil)), program: os.Args[0], args: []string{"-test.run", "^TestChildProcess$"},
		output: writerFunc(func(b []byte) { pids <- string(b) }),
	}
	t.Setenv("MANOR_TEST_LISTEN", p.local("mqtt"))
	part := c.part()
	if err := part.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-pids
	nc, err := net.Dial("tcp", p.local("mqtt"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nc.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	_, _ = nc.Read(make([]byte, 1)) // until it has ended
	_ = nc.Close()
	select {
	case second := <-pids:
		t.Errorf("it was started again, as process %s", second)
	case <-time.After(3 * restartFirst):
	}
	if err := part.Drain(context.Background()); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(said.String(), "is not started again") {
		t.Errorf("said %q", &said)
	}
}

func TestChild_ThatDoesNotStart(t *testing.T) {
	c := &child{process: &process{Name: "none", Ports: map[string]int{"mqtt": freePort(t)}}, log: slog.New(slog.DiscardHandler), program: "/nowhere/at/all", output: io.Discard}
	if err := c.part().Start(t.Context()); err == nil {
		t.Error("a program that is not there started")
	}
}

// TestChildProcess is the process of TestChild. It ends as a node that is none any more when somebody
// sends it something.
func TestChildProcess(t *testing.T) {
	addr := os.Getenv("MANOR_TEST_LISTEN")
	if addr == "" {
		t.Skip("it is run by TestChild")
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	if _, err := os.Stdout.WriteString(pidText()); err != nil {
		t.Fatal(err)
	}
	for {
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			if n, _ := nc.Read(make([]byte, 1)); n > 0 {
				os.Exit(node.ExitRetired)
			}
			_ = nc.Close()
		}()
	}
}
