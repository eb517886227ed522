// SPDX-License-Identifier: Apache-2.0

package remote_test

import (
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/directory/directorytest"
	"github.com/manormq/manor/tenancy/managedca"
	"github.com/manormq/manor/tenancy/remote"
	"github.com/manormq/manor/tenancy/tenancytest"
)

// A gateway hears of custom domains, their certificates and challenges, and knows them
// after a restart without the bus; their keys are nowhere in the clear.
func TestCustomHosts(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	natsDir, own := t.TempDir(), t.TempDir()
	srv := server(t, natsDir, "127.0.0.1:0")
	s := newStore(t, connect(t, srv.URL()))
	directorytest.SignUp(t, s, "acme")
	sealer, err := managedca.NewSealer(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	key, err := remote.LoadKey(filepath.Join(own, "node.key"))
	if err != nil {
		t.Fatal(err)
	}
	cfg := remote.Config{Bus: connect(t, srv.URL()), Snapshot: filepath.Join(own, "directory.snapshot"), Key: key, OpenKey: sealer.Open}
	d, stop := start(t, cfg)
	ready(t, d)
	const name = "mqtt.acme.example"
	eventually := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("there is still not: %s", what)
			}
		}
	}
	unknown := func(host string) bool {
		_, err := d.TenantByHost(ctx, host)
		return errs.Is(err, errs.NotFound)
	}
	if !unknown(name) || d.CustomHost(name) != nil {
		t.Error("a name that nobody has is known")
	}
	if err := s.ClaimHost(ctx, "acme", name); err != nil {
		t.Fatal(err)
	}
	eventually("the name", func() bool { return d.CustomHost(name) != nil })
	if !unknown(name) {
		t.Error("a name without a certificate is served")
	}
	chain, keyPEM := tenancytest.NewCA(t, "ca").Server(5, time.Now().Add(time.Hour), name)
	block, _ := pem.Decode([]byte(keyPEM))
	if err := s.ChangeHost(ctx, "acme", name, func(h *tenancy.Host) {
		h.Certificates, h.Sealed = chain, sealer.Seal(tenancy.HostPurpose("acme", name), block.Bytes)
		h.Challenge = []byte("digest")
	}); err != nil {
		t.Fatal(err)
	}
	known := func() bool {
		tn, err := d.TenantByHost(ctx, "MQTT.acme.example.")
		if err != nil || tn.ID != "acme" {
			return false
		}
		h := d.CustomHost(name)
		c, err := h.Certificate()
		return err == nil && c.Leaf.SerialNumber.Int64() == 5 && string(h.Host().Challenge) == "digest"
	}
	eventually("the certificate", known)
	eventually("the snapshot", func() bool {
		b, err := os.ReadFile(cfg.Snapshot)
		return err == nil && strings.Contains(string(b), "BEGIN CERTIFICATE")
	})
	if b, err := os.ReadFile(cfg.Snapshot); err != nil || strings.Contains(string(b), "PRIVATE") {
		t.Errorf("the snapshot has a key: %v", err)
	}
	stop()
	without, stopWithout := start(t, remote.Config{Bus: cfg.Bus})
	ready(t, without)
	if _, err := without.TenantByHost(ctx, name); !errs.Is(err, errs.NotFound) {
		t.Errorf("without a key to open them, names are served: %v", err)
	}
	stopWithout()
	srv.Shutdown()
	d, stop = start(t, cfg)
	if !known() {
		t.Error("after a restart without the bus, the name is not known")
	}
	server(t, natsDir, strings.TrimPrefix(srv.URL(), "nats://"))
	eventually("the release of the name", func() bool {
		return s.ReleaseHost(ctx, "acme", name) == nil && d.CustomHost(name) == nil && unknown(name)
	})
	stop()
}

// A wildcard serves names one label below it, and none of those that somebody has verified.
func TestWildcardHosts(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	srv := server(t, t.TempDir(), "127.0.0.1:0")
	s := newStore(t, connect(t, srv.URL()))
	directorytest.SignUp(t, s, "acme")
	directorytest.SignUp(t, s, "beta")
	sealer, err := managedca.NewSealer(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	own := t.TempDir()
	nodeKey, err := remote.LoadKey(filepath.Join(own, "node.key"))
	if err != nil {
		t.Fatal(err)
	}
	cfg := remote.Config{Bus: connect(t, srv.URL()), Snapshot: filepath.Join(own, "directory.snapshot"), Key: nodeKey, OpenKey: sealer.Open}
	d, stop := start(t, cfg)
	ready(t, d)
	ca := tenancytest.NewCA(t, "ca")
	has := func(tenant, name string, serial int64) {
		t.Helper()
		if err := s.ClaimHost(ctx, tenant, name); err != nil {
			t.Fatal(err)
		}
		if serial == 0 {
			return
		}
		chain, key := ca.Server(serial, time.Now().Add(time.Hour), name)
		block, _ := pem.Decode([]byte(key))
		if err := s.ChangeHost(ctx, tenant, name, func(h *tenancy.Host) {
			h.Certificates, h.Sealed = chain, sealer.Seal(tenancy.HostPurpose(tenant, name), block.Bytes)
		}); err != nil {
			t.Fatal(err)
		}
	}
	const base = "devices.acme.example"
	has("acme", "*."+base, 2)
	has("acme", "*.test", 3) // claimed before this installation had its name, which is test
	has("beta", "taken."+base, 4)
	has("beta", "unready."+base, 0)
	has("acme", "own."+base, 0)
	if err := s.ChangeHost(ctx, "acme", "own."+base, func(h *tenancy.Host) { h.Challenge = []byte("digest") }); err != nil {
		t.Fatal(err)
	}
	check := func(d *remote.Directory, names map[string]string) (wrong string) {
		for name, want := range names {
			got := "nobody"
			if tn, err := d.TenantByHost(ctx, name); err == nil {
				got = tn.ID
				if h := d.CustomHost(name); h != nil {
					c, err := h.Certificate()
					if err != nil {
						return name + ": " + err.Error()
					}
					got += " " + c.Leaf.SerialNumber.String() + " " + string(h.Host().Challenge)
				}
			}
			if got != want {
				wrong += name + ": " + got + ", want " + want + "; "
			}
		}
		return wrong
	}
	eventually := func(d *remote.Directory, names map[string]string) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			wrong := check(d, names)
			if wrong == "" {
				return
			}
			if time.Now().After(end) {
				t.Fatal(wrong)
			}
		}
	}
	names := map[string]string{
		"a." + base: "acme 2 ", "A." + strings.ToUpper(base) + ".": "acme 2 ",
		"a.b." + base: "nobody", base: "nobody", "." + base: "nobody", "*." + base: "nobody", "x" + base: "nobody",
		"taken." + base: "beta 4 ", "unready." + base: "nobody", "own." + base: "acme 2 digest",
		"test": "nobody", "acme.test": "acme", "beta.test": "beta", "x.test": "nobody",
	}
	eventually(d, names)
	// What another tenant gives up is the wildcard's, and the other way round.
	if err := s.ReleaseHost(ctx, "beta", "taken."+base); err != nil {
		t.Fatal(err)
	}
	names["taken."+base] = "acme 2 "
	eventually(d, names)
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if b, err := os.ReadFile(cfg.Snapshot); err == nil && strings.Contains(string(b), `"*.`+base) && !strings.Contains(string(b), "taken."+base) {
			break
		} else if time.Now().After(end) {
			t.Fatalf("the snapshot has not the wildcard: %v", err)
		}
	}
	stop()
	again, stop := start(t, cfg) // from the snapshot
	eventually(again, names)
	if err := s.ReleaseHost(ctx, "acme", "*."+base); err != nil {
		t.Fatal(err)
	}
	eventually(again, map[string]string{"a." + base: "nobody", "own." + base: "nobody"})
	stop()
}
