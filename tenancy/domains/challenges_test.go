// SPDX-License-Identifier: Apache-2.0

package domains

import (
	"testing"

	"github.com/manormq/manor/infra/bus/mem"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/tenancy/store"
)

// An order that ends late leaves the challenge of the next one.
func TestChallenges_CleanUp(t *testing.T) {
	s, err := store.New(t.Context(), store.Config{Bus: mem.New(), Log: telemetry.Discard(), Region: "local"})
	if err == nil {
		err = s.ClaimHost(t.Context(), "acme", fqdn)
	}
	if err != nil {
		t.Fatal(err)
	}
	c := Challenges{s}
	first, second := [32]byte{1}, [32]byte{2}
	for _, step := range []struct {
		do   func() error
		want int // bytes
	}{
		{func() error { return c.Present(t.Context(), fqdn, first) }, 32},
		{func() error { return c.Present(t.Context(), fqdn, second) }, 32},
		{func() error { return c.CleanUp(t.Context(), fqdn, first) }, 32},
		{func() error { return c.CleanUp(t.Context(), fqdn, second) }, 0},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		if h, err := s.Host(t.Context(), fqdn); err != nil || len(h.Challenge) != step.want {
			t.Errorf("%+v %v, want %d bytes", h, err, step.want)
		}
	}
	if err := c.CleanUp(t.Context(), "gone.example", first); err != nil {
		t.Errorf("of a name that is gone: %v", err)
	}
}
