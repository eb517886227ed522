// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"slices"
	"testing"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/tenancy"
)

// TestChanges_Late holds that a change has its effect on who is connected, also where
// what is known is too old to let anybody in by, and where the tenant can be looked up
// only later: nobody tells of it a second time.
func TestChanges_Late(t *testing.T) {
	t.Parallel()
	lifetime := int64(1)
	suspend := func(w *world) {
		w.dir.edit("acme", func(t *tenancy.Tenant) { t.State = tenancy.StateSuspended })
		w.dir.changes <- tenancy.Change{Kind: tenancy.TenantChanged, Tenant: "acme"}
	}
	for name, c := range map[string]struct {
		change func(*world)
		reason mqtt.ReasonCode
	}{
		"tenant": {suspend, mqtt.AdministrativeAction},
		"credential": {func(w *world) {
			session := &tenancy.SessionOverride{Settings: &tenancy.SettingsOverride{MaxConnectionLifetime: &lifetime}}
			w.dir.changes <- tenancy.Change{Kind: tenancy.CredentialChanged, Tenant: "acme", Username: "dev", Session: session}
		}, mqtt.MaximumConnectTime},
		"device": {func(w *world) {
			w.dir.mu.Lock()
			w.dir.groups = []string{"stolen"}
			w.dir.mu.Unlock()
			w.dir.changes <- tenancy.Change{Kind: tenancy.DeviceChanged, Tenant: "acme", Username: "dev"}
		}, mqtt.NotAuthorized},
	} {
		for _, late := range []bool{false, true} {
			t.Run(name+map[bool]string{false: "/too old", true: "/unknown"}[late], func(t *testing.T) {
				t.Parallel()
				w := policed(t, notStolen, nil)
				w.dir.edit("acme", func(t *tenancy.Tenant) { t.Registry = true })
				dev := w.dial("mqtt").mustConnect(hello("c"))
				w.dir.mu.Lock()
				w.dir.down, w.dir.downAs, w.dir.unknown = true, tenancy.CodeControlPlaneGone, late
				w.dir.mu.Unlock()
				c.change(w)
				if late {
					w.eventually("a look-up in vain", func() bool {
						w.dir.mu.Lock()
						defer w.dir.mu.Unlock()
						return w.dir.lookups > 0
					})
					dev.send(&packet.Packet{Type: packet.PINGREQ})
					dev.want(packet.PINGRESP)
					w.dir.mu.Lock()
					w.dir.unknown = false
					w.dir.mu.Unlock()
				}
				dev.wantDisconnect(c.reason, "")
			})
		}
	}
}

// notStolen is a policy that lets everybody in but devices of the group "stolen".
func notStolen(_ *tenancy.Tenant, a *tenancy.Arrival) (*tenancy.Grant, error) {
	if slices.Contains(a.Client.Groups, "stolen") {
		return nil, errs.New(errs.Denied, "stolen")
	}
	return tenancy.NewGrant(tenancy.GrantRevision(1), []string{"#"}, []string{"#"})
}
