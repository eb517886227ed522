// SPDX-License-Identifier: Apache-2.0

package directorytest

import (
	"fmt"
	"reflect"
	"testing"

	xdg "github.com/xdg-go/scram"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/authn/scram"
	"github.com/manormq/manor/tenancy/store"
)

// Exchange authenticates with SCRAM-SHA-256; tenant is nil if the user name has
// it as its prefix.
func Exchange(t *testing.T, d tenancy.Directory, tenant *tenancy.Tenant, username, secret string) (*tenancy.Identity, error) {
	t.Helper()
	e, err := d.Begin(t.Context(), tenancy.MethodSCRAM, tenancy.Attempt{Tenant: tenant})
	if err != nil {
		return nil, err
	}
	c, err := xdg.SHA256.NewClient(username, secret, "")
	if err != nil {
		t.Fatal(err)
	}
	talk := c.NewConversation()
	var answer []byte
	for {
		text, err := talk.Step(string(answer))
		if err != nil {
			t.Fatal(err)
		}
		var id *tenancy.Identity
		if answer, id, err = e.Step(t.Context(), []byte(text)); err != nil || id != nil {
			return id, err
		}
	}
}

// testExchange also holds that a credential's session is what the identity says.
func testExchange(t *testing.T, s *store.Store, d tenancy.Directory) {
	ctx := t.Context()
	SignUp(t, s, "acme")
	r, err := s.Tenant(ctx, "acme")
	if err != nil {
		t.Fatal(err)
	}
	keys, err := scram.Derive("secret", scram.IterationsGenerated)
	if err != nil {
		t.Fatal(err)
	}
	retry := int64(7)
	_, err = s.AddCredential(ctx, r, tenancy.Credential{
		Username: "a:b", Hash: "$sha256$x", SCRAM: keys,
		Session: &tenancy.SessionOverride{Settings: &tenancy.SettingsOverride{RetryInterval: &retry}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var tenant *tenancy.Tenant
	Eventually(t, func() string {
		if tenant, err = d.Tenant(ctx, "acme"); err != nil {
			return err.Error()
		}
		return ""
	})
	for username, in := range map[string]*tenancy.Tenant{"a:b": tenant, "acme:a:b": nil} {
		id, err := Exchange(t, d, in, username, "secret")
		if err != nil {
			t.Fatal(err)
		}
		if id.Tenant.ID != "acme" || id.Username != "a:b" || *id.Session.Settings.RetryInterval != 7 {
			t.Errorf("identity %+v", id)
		}
	}
	for _, c := range []struct {
		in             *tenancy.Tenant
		username, word string
	}{
		{tenant, "a:b", "wrong"}, {tenant, "nobody", "secret"}, {tenant, "default", "secret"}, // which has no SCRAM
		{nil, "a", "secret"}, {nil, "nowhere:a:b", "secret"}, {nil, "acme:nobody", "secret"}, {&tenancy.Tenant{ID: "nowhere"}, "a:b", "secret"},
	} {
		if _, err := Exchange(t, d, c.in, c.username, c.word); !errs.Is(err, errs.Denied) {
			t.Errorf("%s with %s: %v", c.username, c.word, err)
		}
	}
	if _, err := d.Begin(ctx, "GS2-KRB5", tenancy.Attempt{Tenant: tenant}); errs.CodeOf(err) != tenancy.CodeMethodUnknown {
		t.Errorf("an unknown method: %v", err)
	}
	// What the credential says of its sessions changes, and its connections stay.
	changes := Watch(t, s, d)
	other := &tenancy.SessionOverride{Quotas: map[string]int64{"topic_levels": 3}}
	if _, _, err := s.SetSession(ctx, "acme", "a:b", 0, other); err != nil {
		t.Fatal(err)
	}
	changes.wantSession(t, "a:b", other)
	Eventually(t, func() string {
		id, err := Exchange(t, d, tenant, "a:b", "secret")
		if err != nil || id.Session.Quotas["topic_levels"] != 3 {
			return fmt.Sprintf("%+v %v", id, err)
		}
		return ""
	})
	// The keys go with the password.
	if _, err := s.SetPassword(ctx, "acme", "a:b", "$sha256$y"); err != nil {
		t.Fatal(err)
	}
	Eventually(t, func() string {
		if _, err := Exchange(t, d, tenant, "a:b", "secret"); !errs.Is(err, errs.Denied) {
			return "the keys of an old password still do"
		}
		return ""
	})
}

// wantSession waits for a CredentialChanged.
func (c *Changes) wantSession(t *testing.T, username string, want *tenancy.SessionOverride) {
	t.Helper()
	Eventually(t, func() string {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, ch := range c.all {
			if ch.Kind == tenancy.CredentialChanged && ch.Username == username && reflect.DeepEqual(ch.Session, want) {
				return ""
			}
		}
		return "the credential's session was not told"
	})
}

func testSettings(t *testing.T, s *store.Store, d tenancy.Directory) {
	ctx := t.Context()
	SignUp(t, s, "acme")
	changes := Watch(t, s, d)
	qos := int64(1)
	if _, err := s.SetSettings(ctx, "acme", 0, &tenancy.SettingsOverride{MaximumQoS: &qos}); err != nil {
		t.Fatal(err)
	}
	changes.Want(t, tenancy.Change{Kind: tenancy.TenantChanged, Tenant: "acme"})
	Eventually(t, func() string {
		after, err := d.Tenant(ctx, "acme")
		if err != nil {
			return err.Error()
		}
		if _, settings := after.Rules(nil); settings.MaximumQoS != 1 || !settings.RetainAvailable {
			return fmt.Sprintf("settings %+v", settings)
		}
		return ""
	})
	bad := int64(3)
	if _, err := s.SetSettings(ctx, "acme", 0, &tenancy.SettingsOverride{MaximumQoS: &bad}); errs.CodeOf(err) != "setting_invalid" {
		t.Errorf("QoS 3: %v", err)
	}
}
