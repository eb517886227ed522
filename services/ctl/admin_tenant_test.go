// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"net/http/httptest"
	"testing"

	"github.com/manormq/manor/services/api/apitest"
	"github.com/manormq/manor/tenancy/store"
)

func TestAdmin_Gives(t *testing.T) {
	s, cfg := apitest.New(t)
	if _, err := cfg.Store.EnsureTenant(t.Context(), "acme", store.EnsureOptions{}); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(s.Operator())
	t.Cleanup(server.Close)
	t.Setenv(operatorEnv, server.URL)
	shown(t, "acme is active, on plan starter; its overrides: none", "admin", "tenant", "plan", "acme", "starter")
	shown(t, "its overrides: connections=20000 publish_rate=-1", "admin", "tenant", "quota", "acme", "connections=20000", "publish_rate=none")
	shown(t, "its overrides: publish_rate=-1", "admin", "tenant", "quota", "acme", "connections=")
	if v := good(t, "admin", "tenant", "quota", "acme", "publish_rate="); v["plan"] != "starter" {
		t.Errorf("got %v", v)
	}
	shown(t, "acme is suspended (the invoice of May is not paid), on plan starter", "admin", "tenant", "suspend", "acme", "--reason", "the invoice of May is not paid")
	shown(t, "acme is active, on plan starter", "admin", "tenant", "resume", "acme")
	bad(t, 1, "no tenant", "admin", "tenant", "suspend", "nobody")
	bad(t, 2, "expected one of the plans dev, free, starter, pro, none", "admin", "tenant", "plan", "acme", "gold")
	bad(t, 2, "did you mean", "admin", "tenant", "quota", "acme", "conections=1")
	bad(t, 2, "expected NAME=LIMIT", "admin", "tenant", "quota", "acme", "connections")
	bad(t, 2, "there twice", "admin", "tenant", "quota", "acme", "connections=1", "connections=")
	bad(t, 1, "no tenant", "admin", "tenant", "plan", "nobody", "pro")
}
