// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"slices"
	"testing"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/tenancy"
)

// A policy sees the groups of a device, and a live client is authorized again when they
// are others.
func TestRegroup(t *testing.T) {
	w := start(t, nil)
	w.dir.edit("acme", func(t *tenancy.Tenant) {
		t.Registry = true
		t.Policy = &tenancy.PolicyRef{Revision: 1}
	})
	w.dir.mu.Lock()
	w.dir.authorize = func(_ *tenancy.Tenant, a *tenancy.Arrival) (*tenancy.Grant, error) {
		filters := []string{"all"}
		if slices.Contains(a.Client.Groups, "presses") {
			filters = append(filters, "presses/#")
		}
		return tenancy.NewGrant(tenancy.GrantRevision(1), filters, filters)
	}
	w.dir.mu.Unlock()
	c := w.dial("mqtt").mustConnect(hello("c"))
	may := func(topic string) bool {
		t.Helper()
		c.send(publish(topic, "x", 1))
		return c.want(packet.PUBACK).Ack.Reason != mqtt.NotAuthorized
	}
	if !may("presses/1") || !may("all") {
		t.Error("the groups of the device are not seen")
	}
	in := func(group string) {
		w.dir.mu.Lock()
		w.dir.groups = []string{group}
		w.dir.mu.Unlock()
		w.dir.changes <- tenancy.Change{Kind: tenancy.DeviceChanged, Tenant: "acme", Username: "dev", Device: &tenancy.Device{Name: "dev", Groups: []string{group}}}
	}
	in("lathes")
	w.eventually("the old groups hold on", func() bool { return !may("presses/1") })
	if !may("all") {
		t.Error("what all may is not granted any more")
	}
	in("presses")
	w.eventually("the new groups do not hold", func() bool { return may("presses/1") })
}

// The groups that a device has when its tenant's first policy comes are those that hold,
// not those of its CONNECT.
func TestRegroup_BeforeThePolicy(t *testing.T) {
	w := start(t, nil)
	w.dir.edit("acme", func(t *tenancy.Tenant) { t.Registry = true })
	c := w.dial("mqtt").mustConnect(hello("c"))
	w.dir.mu.Lock()
	w.dir.groups = []string{"lathes"}
	w.dir.authorize = func(_ *tenancy.Tenant, a *tenancy.Arrival) (*tenancy.Grant, error) {
		filters := []string{"all"}
		if slices.Contains(a.Client.Groups, "presses") {
			filters = append(filters, "presses/#")
		}
		return tenancy.NewGrant(tenancy.GrantRevision(1), filters, filters)
	}
	w.dir.mu.Unlock()
	w.dir.changes <- tenancy.Change{Kind: tenancy.DeviceChanged, Tenant: "acme", Username: "dev"}
	w.change("acme", func(t *tenancy.Tenant) { t.Policy = &tenancy.PolicyRef{Revision: 1} })
	w.eventually("the policy does not hold, or for groups of before", func() bool {
		c.send(publish("presses/1", "x", 1))
		return c.want(packet.PUBACK).Ack.Reason == mqtt.NotAuthorized
	})
}
