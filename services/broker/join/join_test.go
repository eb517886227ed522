// SPDX-License-Identifier: Apache-2.0

package join_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/infra/wire"
	"github.com/manormq/manor/infra/wire/wiretest"
	"github.com/manormq/manor/services/broker/join"
)

// gatehouse is a Server whose tokens' use is noted in memory.
type gatehouse struct {
	*join.Authority
	address string
	files   wiretest.Files

	mu     sync.Mutex
	used   map[string]string
	denied string // guarded by mu: the name that Admit refuses
}

func open(t *testing.T, life time.Duration) *gatehouse {
	t.Helper()
	g := &gatehouse{files: wiretest.Nodes(t, "b1")["b1"], used: map[string]string{}}
	var err error
	if g.Authority, err = join.OpenAuthority(g.files.CA, g.files.CAKey); err != nil {
		t.Fatal(err)
	}
	conf, err := wire.TLS(g.files.Cert, g.files.Key, g.files.CA)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g.address = l.Addr().String()
	s := join.NewServer(join.ServerConfig{
		Authority: g.Authority, TLS: conf, Life: life, Log: telemetry.Discard(),
		Cluster: join.Cluster{NATS: []string{"nats://10.0.0.1:4222"}, NATSToken: "secret", Partitions: 64, Replicas: 2},
		Admit: func(_ context.Context, node string, _ bool) error {
			g.mu.Lock()
			defer g.mu.Unlock()
			if node == g.denied {
				return errs.New(errs.Conflict, "there is a broker called %q already", node)
			}
			return nil
		},
		Use: func(_ context.Context, id, who string) error {
			g.mu.Lock()
			defer g.mu.Unlock()
			if by, ok := g.used[id]; ok && by != who {
				return errs.New(errs.Conflict, "the join token was used before")
			}
			g.used[id] = who
			return nil
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return g
}

func (g *gatehouse) token(t *testing.T, ttl time.Duration, node string) string {
	t.Helper()
	s, err := g.Token(time.Now(), ttl, node)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (g *gatehouse) join(t *testing.T, dir, token, node string) (*join.Cluster, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	return join.Join(ctx, join.Files{Dir: dir}, g.address, token, node, telemetry.Discard())
}

func leaf(t *testing.T, file string) *x509.Certificate {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// What a new broker gets is what its links need, and it may ask again when it got no
// answer; nobody else may use its token.
func TestJoin(t *testing.T) {
	g := open(t, 0)
	dir := filepath.Join(t.TempDir(), "pki")
	token := g.token(t, time.Hour, "")
	told, err := g.join(t, dir, token, "b2")
	if err != nil {
		t.Fatal(err)
	}
	if told.Partitions != 64 || told.NATSToken != "secret" || told.NATS[0] != "nats://10.0.0.1:4222" {
		t.Errorf("told %+v", told)
	}
	f := join.Files{Dir: dir}
	if kept, err := f.Cluster(); err != nil || kept.Replicas != 2 {
		t.Errorf("kept %+v, %v", kept, err)
	}
	conf, err := wire.TLS(f.Cert(), f.Key(), f.CA())
	if err != nil {
		t.Fatal(err)
	}
	cert := leaf(t, f.Cert())
	if _, err := cert.Verify(x509.VerifyOptions{Roots: conf.RootCAs, DNSName: "b2"}); err != nil || cert.IsCA {
		t.Errorf("%v, CA %v", err, cert.IsCA)
	}
	if info, err := os.Stat(f.Key()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key has mode %v, %v", info.Mode(), err)
	}
	if _, err := g.join(t, dir, token, "b2"); err != nil {
		t.Errorf("asked again with the same key: %v", err)
	}
	if _, err := g.join(t, filepath.Join(t.TempDir(), "pki"), token, "b3"); !errs.Is(err, errs.Conflict) || !strings.Contains(err.Error(), "used before") {
		t.Errorf("a token that was used: %v", err)
	}
}

// Who has no good token gets nothing, and hears why.
func TestJoin_Refused(t *testing.T) {
	g := open(t, 0)
	other := open(t, 0)
	g.denied = "taken"
	old, err := g.Token(time.Now().Add(-2*time.Hour), time.Hour, "")
	if err != nil {
		t.Fatal(err)
	}
	good := g.token(t, time.Hour, "")
	flip := func(at int) string {
		c := byte('A')
		if good[at] == c {
			c = 'B'
		}
		return good[:at] + string(c) + good[at+1:]
	}
	for _, c := range []struct {
		what, token, node, says string
		kind                    errs.Kind
	}{
		{"nonsense", "hello", "b2", "expected a join token", errs.Invalid},
		{"cut short", good[:60], "b2", "is whole", errs.Invalid},
		{"expired", old, "b2", "has expired", errs.Denied},
		{"for another", g.token(t, time.Hour, "b9"), "b2", `is for a broker called "b9"`, errs.Denied},
		{"of another cluster", other.token(t, time.Hour, ""), "b2", "shows another CA", errs.Denied},
		{"another id", flip(len("manor-join-1.") + 20), "b2", "is not one of this cluster", errs.Denied},
		{"another end", flip(len(good) - 4), "b2", "is not one of this cluster", errs.Denied},
		{"another fingerprint", flip(len("manor-join-1.") + 40), "b2", "shows another CA", errs.Denied},
		{"a name that is taken", g.token(t, time.Hour, ""), "taken", "already", errs.Conflict},
	} {
		dir := filepath.Join(t.TempDir(), "pki")
		_, err := g.join(t, dir, c.token, c.node)
		if !errs.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, expected %v with %q", c.what, err, c.kind, c.says)
		}
		if _, err := os.Stat(join.Files{Dir: dir}.Cert()); err == nil {
			t.Errorf("%s: it has a certificate", c.what)
		}
	}
	if len(g.used) > 0 {
		t.Errorf("tokens that were refused are noted as used: %v", g.used)
	}
	if _, err := g.Token(time.Now(), 8*24*time.Hour, ""); !errs.Is(err, errs.Invalid) {
		t.Errorf("a token for 8 days: %v", err)
	}
}

// Somebody in between, with a certificate of another CA and the true CA's shown behind it,
// never sees the token.
func TestJoin_InBetween(t *testing.T) {
	g, other := open(t, 0), open(t, 0)
	cert, err := tls.LoadX509KeyPair(other.files.Cert, other.files.Key)
	if err != nil {
		t.Fatal(err)
	}
	cert.Certificate = append(cert.Certificate, leaf(t, g.files.CA).Raw)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	read := make(chan int, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		n, _ := c.Read(make([]byte, 1000))
		_ = c.Close()
		read <- n
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err = join.Join(ctx, join.Files{Dir: t.TempDir()}, l.Addr().String(), g.token(t, time.Hour, ""), "b2", telemetry.Discard())
	if !errs.Is(err, errs.Denied) || !strings.Contains(err.Error(), "no certificate of the cluster's CA") {
		t.Errorf("%v", err)
	}
	if n := <-read; n > 0 {
		t.Errorf("it has read %d bytes", n)
	}
}

// A certificate is renewed before its end, and counts for links without a restart.
func TestRenewer(t *testing.T) {
	g := open(t, 5*time.Second)
	f := join.Files{Dir: filepath.Join(t.TempDir(), "pki")}
	if _, err := g.join(t, f.Dir, g.token(t, time.Hour, ""), "b2"); err != nil {
		t.Fatal(err)
	}
	conf, err := wire.TLS(f.Cert(), f.Key(), f.CA())
	if err != nil {
		t.Fatal(err)
	}
	first := leaf(t, f.Cert())
	r := &join.Renewer{Files: f, Address: g.address, Node: "b2", Log: telemetry.Discard()}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		r.Run(ctx)
		close(done)
	}()
	for begun := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		cert, err := conf.GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		if now, err := x509.ParseCertificate(cert.Certificate[0]); err == nil && now.NotAfter.After(first.NotAfter) {
			break
		}
		if time.Since(begun) > 20*time.Second {
			t.Fatal("not renewed")
		}
	}
	cancel()
	<-done
	// Without a certificate, or with another's, nobody renews.
	g.mu.Lock()
	g.denied = "b2"
	g.mu.Unlock()
	stolen := join.Files{Dir: t.TempDir()}
	for from, to := range map[string]string{f.Cert(): stolen.Cert(), f.Key(): stolen.Key(), f.CA(): stolen.CA()} {
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"b2", "b1"} {
		if err := join.RenewNow(t.Context(), &join.Renewer{Files: stolen, Address: g.address, Node: name, Log: telemetry.Discard()}); err == nil {
			t.Errorf("a certificate of b2 is renewed for %s", name)
		}
	}
}
