// SPDX-License-Identifier: Apache-2.0

package remote_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/bus/embed"
	"github.com/manormq/manor/infra/bus/mem"
	"github.com/manormq/manor/infra/bus/nats"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/authn/jwt"
	"github.com/manormq/manor/tenancy/authn/password"
	"github.com/manormq/manor/tenancy/authn/scram"
	"github.com/manormq/manor/tenancy/directory/directorytest"
	"github.com/manormq/manor/tenancy/remote"
	"github.com/manormq/manor/tenancy/store"
	"github.com/manormq/manor/tenancy/tenancytest"
)

func server(t *testing.T, dir, listen string) *embed.Server {
	t.Helper()
	s, err := embed.Start(t.Context(), embed.Config{Dir: dir, Listen: listen, Log: telemetry.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	return s
}

func connect(t *testing.T, addr string) *nats.Bus {
	t.Helper()
	b, err := nats.Connect(nats.Config{URLs: []string{addr}, Name: "test", Log: telemetry.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func newStore(t *testing.T, b bus.Bus) *store.Store {
	t.Helper()
	s, err := store.New(t.Context(), store.Config{Bus: b, Log: telemetry.Discard(), Region: "local"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// start runs a directory until stop is called or the test ends.
func start(t *testing.T, cfg remote.Config) (d *remote.Directory, stop func()) {
	t.Helper()
	v, err := password.NewVerifier(0)
	if err != nil {
		t.Fatal(err)
	}
	methods, err := scram.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	cfg.SCRAM = func(find func(string) (*tenancy.SCRAM, error)) (remote.Conversation, error) {
		return methods.Begin(find)
	}
	if cfg.Tokens, err = jwt.New(); err != nil {
		t.Fatal(err)
	}
	cfg.Verifier, cfg.Domain, cfg.Log = v, "test", telemetry.Discard()
	if d, err = remote.New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := d.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(stop)
	return d, stop
}

func ready(t *testing.T, d *remote.Directory) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := d.Ready(ctx); err != nil {
		t.Fatal(err)
	}
}

// TestDirectory runs the suite over two connections, as in two processes.
func TestDirectory(t *testing.T) {
	directorytest.Run(t, func(t *testing.T) (*store.Store, tenancy.Directory) {
		srv := server(t, t.TempDir(), "127.0.0.1:0")
		s := newStore(t, connect(t, srv.URL()))
		d, _ := start(t, remote.Config{Bus: connect(t, srv.URL()), Region: "local"})
		ready(t, d)
		return s, d
	})
}

// TestControlPlaneGone holds that known devices connect while NATS is gone,
// also after a restart of this process, that unknown ones hear why not, and
// that what changed meanwhile is told when it is back.
func TestControlPlaneGone(t *testing.T) {
	ctx := t.Context()
	natsDir, own := t.TempDir(), t.TempDir()
	srv := server(t, natsDir, "127.0.0.1:0")
	addr := srv.URL()
	s := newStore(t, connect(t, addr))
	secret := directorytest.SignUp(t, s, "acme")
	doomed := directorytest.AddCredential(t, s, "acme", "doomed")
	neighbour := directorytest.AddCredential(t, s, "acme", "neighbour")
	directorytest.SignUp(t, s, "beta")
	from := tenancytest.NewIssuer(t, "issuer")
	ban, _, err := s.Ban(ctx, "acme", tenancy.Ban{Kind: tenancy.BanClientID, Value: "stolen"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.UpdateTenant(ctx, "acme", 0, store.Issuers([]tenancy.Issuer{from.Issuer()})); err != nil {
		t.Fatal(err)
	}
	if err := s.PutTokenKeys(ctx, &tenancy.KeySet{Tenant: "acme", URL: from.URL, JWKS: from.JWKS(), FetchedAt: time.Now(), TriedAt: time.Now()}, bus.Absent); err != nil {
		t.Fatal(err)
	}
	banned := func(d *remote.Directory) bool {
		return d.Bans("acme").Match(tenancy.Client{ClientID: "stolen"}, time.Now()) != nil
	}
	acme, err := s.Tenant(ctx, "acme")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.PutDevice(ctx, acme, tenancy.Device{Name: "default", Groups: []string{"presses"}}, 0); err != nil {
		t.Fatal(err)
	}
	grouped := func(d *remote.Directory) bool {
		tn, err := d.Tenant(ctx, "acme")
		if err != nil {
			t.Fatal(err)
		}
		x, err := d.Device(ctx, tn, "default")
		return err == nil && x != nil && x.Groups[0] == "presses"
	}
	byToken := func(d *remote.Directory, token string) error {
		_, err := d.Authenticate(ctx, tenancy.Attempt{Method: tenancy.AuthJWT, Tenant: &tenancy.Tenant{ID: "acme"}, Password: []byte(token), HasPassword: true})
		return err
	}

	key, err := remote.LoadKey(filepath.Join(own, "node.key"))
	if err != nil {
		t.Fatal(err)
	}
	cfg := remote.Config{Bus: connect(t, addr), Snapshot: filepath.Join(own, "directory.snapshot"), Key: key}
	d, stop := start(t, cfg)
	ready(t, d)
	for name, pw := range map[string]string{"default": secret, "doomed": doomed} {
		if _, err := directorytest.Attempt(ctx, d, "acme", name, pw); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(10 * time.Second); !grouped(d); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a device is in no group")
		}
	}
	// The tenant was read whole on first use: wait for it to be in the file.
	deadline := time.Now().Add(30 * time.Second)
	for {
		grouped(d) // what is asked for before its watch has begun is not kept
		b, err := os.ReadFile(cfg.Snapshot)
		if err == nil && containsAll(string(b), `"neighbour"`, `"whole":true`, `"stolen"`, `"token_keys"`, `"issuer"`, `"presses"`, `"devices_revision"`) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no snapshot: %v %s", err, b)
		}
		time.Sleep(10 * time.Millisecond)
	}
	srv.Shutdown()
	check := func(d *remote.Directory, when string) {
		t.Helper()
		for name, pw := range map[string]string{"default": secret, "neighbour": neighbour} {
			if _, err := directorytest.Attempt(ctx, d, "acme", name, pw); err != nil {
				t.Errorf("%s: known device %s: %v", when, name, err)
			}
		}
		begin := time.Now()
		if _, err := directorytest.Attempt(ctx, d, "acme", "unknown", "x"); !errs.Is(err, errs.Unavailable) {
			t.Errorf("%s: unknown device: %v, want Unavailable", when, err)
		}
		if _, err := d.Tenant(ctx, "unknown"); !errs.Is(err, errs.Unavailable) {
			t.Errorf("%s: unknown tenant: %v, want Unavailable", when, err)
		}
		if !banned(d) {
			t.Errorf("%s: who is banned is let in", when)
		}
		if !grouped(d) {
			t.Errorf("%s: a device has lost its groups", when)
		}
		if err := byToken(d, from.Token("x", nil)); err != nil {
			t.Errorf("%s: a token: %v", when, err)
		}
		if err := byToken(d, tenancytest.NewIssuer(t, "issuer").TokenBy("1", "ES256", "x", nil)); !errs.Is(err, errs.Denied) {
			t.Errorf("%s: a token of another key: %v", when, err)
		}
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("%s: unknown ones waited %s", when, took)
		}
		if _, err := directorytest.Attempt(ctx, d, "acme", "default", "wrong"); !errs.Is(err, errs.Denied) {
			t.Errorf("%s: wrong password: %v", when, err)
		}
	}
	check(d, "NATS gone")
	stop()
	cfg.Bus = connect(t, addr)
	d, stop = start(t, cfg)
	ready(t, d)
	check(d, "restarted")

	// The bus is back, and things have happened.
	u, err := url.Parse(addr)
	if err != nil {
		t.Fatal(err)
	}
	server(t, natsDir, u.Host)
	deadline = time.Now().Add(10 * time.Second)
	for {
		_, err := s.EnsureTenant(ctx, "later", store.EnsureOptions{})
		if _, derr := d.Tenant(ctx, "later"); err == nil && derr == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err, derr)
		}
		time.Sleep(10 * time.Millisecond)
	}
	changes := directorytest.Watch(t, s, d)
	for {
		_, err := s.Unban(ctx, "acme", ban.ID, 0)
		if (err == nil || errs.Is(err, errs.NotFound)) && !banned(d) {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("after NATS came back: still banned, %v", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	for {
		if err := s.DeleteCredential(ctx, "acme", "doomed", 0); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if _, err := s.SetOverrides(ctx, "beta", 0, map[string]int64{"connections": 7}); err != nil {
		t.Fatal(err)
	}
	deadline = time.Now().Add(10 * time.Second)
	for {
		_, err := directorytest.Attempt(ctx, d, "acme", "doomed", doomed)
		b, berr := d.Tenant(ctx, "beta")
		if errs.Is(err, errs.NotFound) && berr == nil && b.Limits.Connections == 7 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("after NATS came back: doomed %v, beta %+v %v", err, b, berr)
		}
		time.Sleep(10 * time.Millisecond)
	}
	changes.Want(t, tenancy.Change{Kind: tenancy.CredentialGone, Tenant: "acme", Username: "doomed"})
	changes.Want(t, tenancy.Change{Kind: tenancy.TenantChanged, Tenant: "beta"})
	stop()

	// A snapshot of another node, or one that was changed, is not believed.
	other := cfg
	other.Key = make([]byte, 32)
	mb := mem.New()
	mb.SetDown(true)
	other.Bus = mb
	d, _ = start(t, other)
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if err := d.Ready(short); !errs.Is(err, errs.Unavailable) {
		t.Errorf("a foreign snapshot: %v", err)
	}
}

func containsAll(s string, parts ...string) bool {
	for _, p := range parts {
		if !strings.Contains(s, p) {
			return false
		}
	}
	return true
}

// TestKeep holds that nothing is answered when the control plane was away too
// long, and that a snapshot that old is not used.
func TestKeep(t *testing.T) {
	ctx := t.Context()
	b := mem.New()
	s := newStore(t, b)
	secret := directorytest.SignUp(t, s, "acme")
	dir := t.TempDir()
	now := time.Now()
	cfg := remote.Config{Bus: b, Snapshot: filepath.Join(dir, "snapshot"), Key: make([]byte, 32), Now: func() time.Time { return now }}
	d, stop := start(t, cfg)
	ready(t, d)
	if _, err := directorytest.Attempt(ctx, d, "acme", "default", secret); err != nil {
		t.Fatal(err)
	}
	stop()
	b.SetDown(true)
	for _, c := range []struct {
		age time.Duration
		ok  bool
	}{{23 * time.Hour, true}, {25 * time.Hour, false}, {-time.Minute, true}, {-time.Hour, false}} { // of a clock that was set back by an hour nothing is believed
		late := cfg
		late.Now = func() time.Time { return now.Add(c.age) }
		d, stop := start(t, late)
		_, err := directorytest.Attempt(ctx, d, "acme", "default", secret)
		if (err == nil) != c.ok || err != nil && !errs.Is(err, errs.Unavailable) {
			t.Errorf("after %s: %v, want ok %v", c.age, err, c.ok)
		}
		stop()
		if !c.ok {
			continue
		}
		if err := d.Check(ctx); err != nil {
			t.Error(err)
		}
	}
	if st, err := os.Stat(cfg.Snapshot); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("snapshot: %v %v", st, err)
	}
}

// TestBounded holds that no more credentials are kept than asked for, and that
// all of them still authenticate.
func TestBounded(t *testing.T) {
	ctx := t.Context()
	b := mem.New()
	s := newStore(t, b)
	directorytest.SignUp(t, s, "acme")
	secrets := map[string]string{}
	for i := range 20 {
		name := fmt.Sprint("sensor-", i)
		secrets[name] = directorytest.AddCredential(t, s, "acme", name)
	}
	d, _ := start(t, remote.Config{Bus: b, Credentials: 5})
	ready(t, d)
	for range 2 {
		for name, secret := range secrets {
			if _, err := directorytest.Attempt(ctx, d, "acme", name, secret); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if n := d.Kept(); n > 5 {
		t.Errorf("%d credentials kept, want 5", n)
	}
}

func TestLoadKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "node.key")
	a, err := remote.LoadKey(path)
	if err != nil || len(a) != 32 {
		t.Fatalf("%x %v", a, err)
	}
	b, err := remote.LoadKey(path)
	if err != nil || string(a) != string(b) {
		t.Errorf("the second time: %x %v", b, err)
	}
	if err := os.WriteFile(path, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := remote.LoadKey(path); !errs.Is(err, errs.Invalid) {
		t.Errorf("short key: %v", err)
	}
}
