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

	t          *testing.T
	ca         *tenancytest.CA
	program    string
	args       []string
	management int // port
	log        lines
	stop       func()
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

// startPebble starts one that asks names for hosts, and finds them at that port. With
// bindings, HMAC keys by their ids, it makes accounts only with one of them.
func startPebble(t *testing.T, names *domainstest.DNS, tlsPort int, bindings ...map[string]string) *pebble {
	t.Helper()
	program := pebbleProgram(t)
	folder := t.TempDir()
	ca := tenancytest.NewCA(t, "pebble's own")
	chain, key := ca.Server(2, time.Now().Add(time.Hour), "localhost")
	management := freePort(t)
	p := &pebble{directory: fmt.Sprintf("https://localhost:%d/dir", freePort(t)), caFile: filepath.Join(folder, "ca.pem")}
	settings := map[string]any{
		"listenAddress": strings.TrimSuffix(strings.TrimPrefix(p.directory, "https://"), "/dir"), "managementListenAddress": fmt.Sprintf("localhost:%d", management),
		"certificate": filepath.Join(folder, "cert.pem"), "privateKey": filepath.Join(folder, "key.pem"),
		"httpPort": freePort(t), "tlsPort": tlsPort, "domainBlocklist": []string{"blocked.example"}, "keyAlgorithm": "ecdsa",
		"retryAfter": map[string]int{"authz": 0, "order": 0},
		"profiles":   map[string]any{"default": map[string]any{"description": "a day", "validityPeriod": 86400}},
	}
	for _, b := range bindings {
		settings["externalAccountBindingRequired"], settings["externalAccountMACKeys"] = true, b
	}
	config, err := json.Marshal(map[string]any{"pebble": settings})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"ca.pem": ca.PEM(), "cert.pem": chain, "key.pem": key, "config.json": string(config)} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p.t, p.program, p.ca, p.management = t, program, ca, management
	p.args = []string{"-config", filepath.Join(folder, "config.json"), "-dnsserver", names.Address}
	p.start()
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			t.Logf("pebble:\n%s", p.log.text())
		}
	})
	return p
}

// start starts it; it knows nothing of what it was before, and signs by another root.
func (p *pebble) start() {
	p.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	c := exec.CommandContext(ctx, p.program, p.args...)
	c.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=0", "PEBBLE_AUTHZREUSE=0")
	c.SysProcAttr = childAttributes()
	c.Stdout, c.Stderr = &p.log, &p.log
	if err := c.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.stop = func() {
		stop()
		_ = c.Wait()
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: tenancytest.Pool(p.ca)}}
	defer transport.CloseIdleConnections()
	asker := &http.Client{Transport: transport, Timeout: 5 * time.Second}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if r, err := asker.Get(p.directory); err == nil {
			_ = r.Body.Close()
			break
		} else if time.Now().After(end) {
			p.t.Fatalf("pebble does not answer: %v\n%s", err, p.log.text())
		}
	}
	r, err := asker.Get(fmt.Sprintf("https://localhost:%d/roots/0", p.management))
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = r.Body.Close() }()
	root, err := io.ReadAll(r.Body)
	p.roots = x509.NewCertPool()
	if err != nil || !p.roots.AppendCertsFromPEM(root) {
		p.t.Fatalf("pebble's root: %v %s", err, root)
	}
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
