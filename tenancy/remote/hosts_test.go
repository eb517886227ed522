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
