// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/manormq/manor/tenancy/domains/domainstest"
	"github.com/manormq/manor/tenancy/tenancytest"
)

// pebble is an ACME server that others wrote, on loopback.
type pebble struct {
	directory string
	// caFile has the roots by which its own server is known, roots those of what it
	// issues.
	caFile string
	roots  *x509.CertPool
}

// pebbleProgram is built into bin/tools by .ci/deps; without it the test is skipped,
// but fails in CI.
func pebbleProgram(t *testing.T) string {
	t.Helper()
	program, err := filepath.Abs("../../../bin/tools/pebble")
	if err != nil {
		t.Fatal(err)
	}
	_, err = os.Stat(program)
	if err != nil {
		program, err = exec.LookPath("pebble")
	}
	switch {
	case err == nil:
	case os.Getenv("CI") == "true":
		t.Fatal("pebble is not installed: .ci/deps builds it into bin/tools")
	default:
		t.Skip("pebble, the ACME server of the test, is not installed: make deps builds it into bin/tools")
	}
	return program
}

// startPebble starts one that asks names for hosts, and finds them at that port.
func startPebble(t *testing.T, names *domainstest.DNS, tlsPort int) *pebble {
	t.Helper()
	program := pebbleProgram(t)
	folder := t.TempDir()
	ca := tenancytest.NewCA(t, "pebble's own")
	chain, key := ca.Server(2, time.Now().Add(time.Hour), "localhost")
	management := freePort(t)
	p := &pebble{directory: fmt.Sprintf("https://localhost:%d/dir", freePort(t)), caFile: filepath.Join(folder, "ca.pem")}
	config, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": strings.TrimSuffix(strings.TrimPrefix(p.directory, "https://"), "/dir"), "managementListenAddress": fmt.Sprintf("localhost:%d", management),
		"certificate": filepath.Join(folder, "cert.pem"), "privateKey": filepath.Join(folder, "key.pem"),
		"httpPort": freePort(t), "tlsPort": tlsPort, "domainBlocklist": []string{"blocked.example"}, "keyAlgorithm": "ecdsa",
		"retryAfter": map[string]int{"authz": 0, "order": 0},
		"profiles":   map[string]any{"default": map[string]any{"description": "a day", "validityPeriod": 86400}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"ca.pem": ca.PEM(), "cert.pem": chain, "key.pem": key, "config.json": string(config)} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	c := exec.CommandContext(ctx, program, "-config", filepath.Join(folder, "config.json"), "-dnsserver", names.Address)
	c.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=0", "PEBBLE_AUTHZREUSE=0")
	c.SysProcAttr = childAttributes()
	var log lines
	c.Stdout, c.Stderr = &log, &log
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		_ = c.Wait()
		if t.Failed() {
			t.Logf("pebble:\n%s", log.text())
		}
	})
	own := x509.NewCertPool()
	own.AddCert(ca.Cert)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: own}}
	defer transport.CloseIdleConnections()
	asker := &http.Client{Transport: transport, Timeout: 5 * time.Second}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if r, err := asker.Get(p.directory); err == nil {
			_ = r.Body.Close()
			break
		} else if time.Now().After(end) {
			t.Fatalf("pebble does not answer: %v\n%s", err, log.text())
		}
	}
	r, err := asker.Get(fmt.Sprintf("https://localhost:%d/roots/0", management))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Body.Close() }()
	root, err := io.ReadAll(r.Body)
	p.roots = x509.NewCertPool()
	if err != nil || !p.roots.AppendCertsFromPEM(root) {
		t.Fatalf("pebble's root: %v %s", err, root)
	}
	return p
}

// lines is what a program has written.
type lines struct {
	mu sync.Mutex
	b  strings.Builder // guarded by mu
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
