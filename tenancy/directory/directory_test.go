// SPDX-License-Identifier: Apache-2.0

package directory_test

import (
	"context"
	"testing"

	"github.com/manormq/manor/infra/bus/mem"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/directory"
	"github.com/manormq/manor/tenancy/directory/directorytest"
	"github.com/manormq/manor/tenancy/store"
)

func open(t *testing.T) (*store.Store, tenancy.Directory) {
	t.Helper()
	s, err := store.New(t.Context(), store.Config{Bus: mem.New(), Log: telemetry.Discard(), Region: "local"})
	if err != nil {
		t.Fatal(err)
	}
	d, err := directory.New(directory.Config{Store: s, Domain: "test", Log: telemetry.Discard()})
	if err != nil {
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
	t.Cleanup(func() {
		cancel()
		<-done
	})
	if err := d.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s, d
}

func TestDirectory(t *testing.T) { directorytest.Run(t, open) }

// TestStorm holds that a storm of reconnections with chosen passwords hashes
// each password once.
func TestStorm(t *testing.T) {
	s, td := open(t)
	d := td.(*directory.Service)
	directorytest.SignUp(t, s, "acme")
	r, err := s.Tenant(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	const devices = 4
	for i := range devices {
		hash, err := d.Verifier().Hash(t.Context(), "acme", "correct horse")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.CreateCredential(t.Context(), r, string(rune('a'+i)), hash); err != nil {
			t.Fatal(err)
		}
	}
	before := d.Verifier().Hashed()
	for i := range 10_000 {
		if _, err := directorytest.Attempt(t.Context(), d, "acme", string(rune('a'+i%devices)), "correct horse"); err != nil {
			t.Fatal(err)
		}
	}
	if n := d.Verifier().Hashed() - before; n != devices {
		t.Errorf("%d hashes for %d devices, expected one each", n, devices)
	}
}
