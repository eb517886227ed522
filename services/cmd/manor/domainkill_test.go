// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/bus/embed"
	"github.com/manormq/manor/infra/bus/nats"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/domains"
	"github.com/manormq/manor/tenancy/domains/domainstest"
	"github.com/manormq/manor/tenancy/managedca"
	"github.com/manormq/manor/tenancy/store"
)

// ordererEnv has a test process be one that sees to domains, and says how.
const ordererEnv = "MANOR_TEST_ORDERER"

// lockLife is how long the locks of a process that was killed stand still here.
const lockLife = 1500 * time.Millisecond

// orderer is what such a process is told.
type orderer struct {
	NATS, Directory, CAFile, Resolver, KeyFile, EABFile string
	Settle                                              time.Duration
}

// TestDomain_Orderer is the process that TestDomain_Killed kills.
func TestDomain_Orderer(t *testing.T) {
	text := os.Getenv(ordererEnv)
	if text == "" {
		t.Skip("is a process of TestDomain_Killed")
	}
	var o orderer
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	b, err := nats.Connect(nats.Config{URLs: []string{o.NATS}, Name: "orderer", Log: log})
	if err != nil {
		t.Fatal(err)
	}
	records, err := store.New(t.Context(), store.Config{Bus: b, Log: log, Region: regionName})
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := managedca.LoadSealer(o.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	s := domains.DefaultSection()
	s.KeyFile, s.Resolver = o.KeyFile, o.Resolver
	s.ACME.Enabled, s.ACME.Directory, s.ACME.CAFile, s.ACME.EABKeyID, s.ACME.EABFile = true, o.Directory, o.CAFile, "acme-1", o.EABFile
	service, end, err := domains.Open(t.Context(), s, sealer, domains.Config{Store: records, Domain: devDomain, Settle: o.Settle, LockLife: lockLife, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	if err := service.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// start starts it, until kill or the end of the test.
func (o orderer) start(t *testing.T) (kill func(), log *lines) {
	t.Helper()
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	log = &lines{}
	c := exec.CommandContext(context.WithoutCancel(t.Context()), os.Args[0], "-test.run=^TestDomain_Orderer$", "-test.timeout=2m")
	c.Env = append(os.Environ(), ordererEnv+"="+string(text))
	c.SysProcAttr = childAttributes()
	c.Stdout, c.Stderr = log, log
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	killed := false
	kill = func() {
		if !killed {
			killed = true
			_ = c.Process.Kill()
			_ = c.Wait()
		}
	}
	t.Cleanup(func() {
		kill()
		if t.Failed() {
			t.Logf("orderer:\n%s", log.text())
		}
	})
	return kill, log
}

// answerChallenges is a gateway as far as a certificate authority sees it: it answers
// TLS-ALPN-01 with what is in the store. It returns its port.
func answerChallenges(t *testing.T, records *store.Store) int {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{NextProtos: []string{"acme-tls/1"}, GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		h, err := records.Host(t.Context(), hello.ServerName)
		if err != nil {
			return nil, err
		}
		digest, err := asn1.Marshal(h.Challenge)
		if err != nil {
			return nil, err
		}
		like := &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "challenge"}, DNSNames: []string{h.FQDN},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 31}, Critical: true, Value: digest}},
		}
		der, err := x509.CreateCertificate(rand.Reader, like, like, key.Public(), key)
		return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
	}})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				_ = c.SetDeadline(time.Now().Add(soon))
				_, _ = c.Read(make([]byte, 1)) // shakes hands, and waits for the end
			}()
		}
	}()
	t.Cleanup(func() { _ = ln.Close(); <-done })
	return ln.Addr().(*net.TCPAddr).Port
}

// TestDomain_Killed: a process that is killed with kill -9 in the middle of an order leaves it
// to another one, which gets one certificate; no lock stays. The CA takes accounts only
// with an external account binding.
func TestDomain_Killed(t *testing.T) {
	t.Parallel()
	pebbleProgram(t)
	log := slog.New(slog.DiscardHandler)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	server, err := embed.Start(t.Context(), embed.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0", Log: log})
	must(err)
	t.Cleanup(server.Shutdown)
	control, err := server.Bus("test")
	must(err)
	records, err := store.New(t.Context(), store.Config{Bus: control, Log: log, Region: regionName})
	must(err)
	acme, err := records.EnsureTenant(t.Context(), "acme", store.EnsureOptions{})
	must(err)

	folder, names := t.TempDir(), domainstest.NewDNS(t)
	mac := base64.RawURLEncoding.EncodeToString([]byte("a key of 32 bytes for the tests."))
	ca := startPebble(t, names, answerChallenges(t, records), map[string]string{"acme-1": mac})
	o := orderer{NATS: server.URL(), Directory: ca.directory, CAFile: ca.caFile, Resolver: names.Address, KeyFile: filepath.Join(folder, "key"), EABFile: filepath.Join(folder, "eab")}
	must(managedca.MakeKeyFile(o.KeyFile))
	must(os.WriteFile(o.EABFile, []byte(mac+"\n"), 0o600))

	const name = "mqtt.acme.example"
	names.Host(name, "127.0.0.1")
	d, err := records.AddDomain(t.Context(), acme, name, tenancy.CertificateACME)
	must(err)
	names.Text(d.ChallengeName(), d.ChallengeValue())
	must(records.ClaimHost(t.Context(), "acme", name))
	_, _, err = records.ChangeDomain(t.Context(), "acme", name, 0, func(d *tenancy.Domain) error {
		d.State, d.VerifiedAt, d.NextRenewal = tenancy.DomainVerified, time.Now(), time.Now()
		return nil
	})
	must(err)

	until := func(what string, f func() bool) {
		t.Helper()
		for end := time.Now().Add(orderTime); !f(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("after %v: expected %s", orderTime, what)
			}
		}
	}
	challenge := func() []byte {
		h, err := records.Host(t.Context(), name)
		must(err)
		return h.Challenge
	}
	locks := func() (all []string) {
		for _, bucket := range []string{"domain_locks", "acme"} {
			b, err := control.Bucket(t.Context(), bus.BucketConfig{Name: bucket})
			must(err)
			keys, err := b.Keys(t.Context(), "lock.")
			must(err)
			all = append(all, keys...)
		}
		return all
	}
	first := o
	first.Settle = time.Minute // it is killed while the challenge settles
	kill, _ := first.start(t)
	until("the order of the first process to be under way", func() bool { return len(challenge()) > 0 })
	kill()
	if n := len(locks()); n < 2 {
		t.Errorf("%d locks were left by who was killed, expected the tenant's and that of the order", n)
	}
	begun := time.Now()
	o.Settle = 100 * time.Millisecond
	_, said := o.start(t)
	o.start(t) // and a third one
	until("the domain to be active", func() bool {
		d, err := records.Domain(t.Context(), "acme", name)
		must(err)
		if d.Failures > 0 {
			t.Fatalf("the order has failed: %s", d.LastError)
		}
		return d.State == tenancy.DomainActive
	})
	t.Logf("taken over, and issued, %v after the kill; the second process says:\n%s", time.Since(begun), said.text())
	until("no lock, and no challenge, to be left", func() bool { return len(locks()) == 0 && len(challenge()) == 0 })
	if n := strings.Count(ca.log.text(), "Issued certificate serial"); n != 1 {
		t.Errorf("%d certificates were issued, expected 1", n)
	}
}
