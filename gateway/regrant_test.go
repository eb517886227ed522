// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"sync/atomic"
	"testing"

	"github.com/manormq/manor/gateway"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/tenancy"
)

// policed starts a gateway whose tenant acme has a policy that is decided by
// authorize.
func policed(t *testing.T, authorize func(*tenancy.Tenant, *tenancy.Arrival) (*tenancy.Grant, error), edit func(*gateway.Config)) *world {
	t.Helper()
	w := start(t, func(w *world, c *gateway.Config) {
		w.dir.authorize = authorize
		w.dir.edit("acme", func(t *tenancy.Tenant) { t.Policy = &tenancy.PolicyRef{Revision: 1} })
		if edit != nil {
			edit(c)
		}
	})
	return w
}

func grantOf(t *testing.T, revision uint64, entries ...tenancy.GrantEntry) *tenancy.Grant {
	t.Helper()
	s, err := tenancy.NewGrantSet(tenancy.GrantRevision(revision), "test", entries)
	if err != nil {
		t.Fatal(err)
	}
	return s.Bind(&tenancy.Subject{})
}

// TestAuthorize: what goes wrong with a policy never lets anybody in, and is told as
// what it is.
func TestAuthorize(t *testing.T) {
	t.Parallel()
	var seen atomic.Pointer[tenancy.Arrival]
	answers := map[string]error{
		"denied": errs.New(errs.Denied, "not you"), "away": errs.New(errs.Unavailable, "nobody answers"), "broken": errs.New(errs.Internal, "secret detail"),
	}
	grant := grantOf(t, 1, tenancy.GrantEntry{Action: tenancy.ActionPublish, Filter: "a"})
	w := policed(t, func(_ *tenancy.Tenant, a *tenancy.Arrival) (*tenancy.Grant, error) {
		seen.Store(a)
		return grant, answers[a.Client.ClientID]
	}, nil)
	for id, want := range map[string]struct {
		reason mqtt.ReasonCode
		text   string
	}{
		"denied": {mqtt.NotAuthorized, "not you"}, "away": {mqtt.ServerUnavailable, "the tenant's policy cannot be asked now"},
		"broken": {mqtt.NotAuthorized, "the tenant's policy cannot be followed"},
	} {
		if k := w.dial("mqtt").connect(hello(id)); k.Reason != want.reason || k.ReasonString != want.text {
			t.Errorf("%s: CONNACK %v %q", id, k.Reason, k.ReasonString)
		}
	}
	for event, want := range map[string]float64{"denied": 1, "unknown": 1, "failed": 1} {
		if got := w.metric("mqtt_gateway_policy_events_total", event); got != want {
			t.Errorf("%s is counted %v times", event, got)
		}
	}
	p := hello("good")
	p.Will = &mqtt.Will{Message: mqtt.Message{Topic: []byte("b")}}
	if k := w.dial("mqtt").connect(p); k.Reason != mqtt.NotAuthorized {
		t.Errorf("a will that is not granted: CONNACK %v", k.Reason)
	}
	if a := seen.Load(); a.Client.Username != "dev" || a.IP != "127.0.0.1" || a.Protocol != "5" || a.Listener != "mqtt" || a.Hostname != "acme.localhost" ||
		!a.CleanStart || a.KeepAlive != 60 || a.Will != "b" {
		t.Errorf("asked about %+v", a)
	}
	// An id that is made up is known before the policy is asked.
	if k := w.dial("mqtt").connect(hello("")); k.Reason != mqtt.Success || k.AssignedClientID == "" || k.AssignedClientID != seen.Load().Client.ClientID {
		t.Errorf("CONNACK %+v, asked about %+v", k, seen.Load())
	}
	// beta has no policy: nobody is asked.
	seen.Store(nil)
	q := hello("b")
	q.Username = "beta:dev"
	w.dial("mqtt").mustConnect(q).roundTrip()
	if seen.Load() != nil {
		t.Error("the directory was asked about a tenant without a policy")
	}
}

// TestRegrant_Later: who cannot be authorized under a new revision keeps what it had
// until that can be, and is ended if it must not stay; what was decided is recorded.
func TestRegrant_Later(t *testing.T) {
	t.Parallel()
	var away atomic.Bool
	var asked atomic.Int32
	old := grantOf(t, 1, tenancy.GrantEntry{Action: tenancy.ActionAll, Filter: "a"})
	latest := grantOf(t, 2, tenancy.GrantEntry{Action: tenancy.ActionAll, Filter: "b", At: "p.rego:3"})
	decisions := make(chan *tenancy.Decision, 1000)
	w := policed(t, func(tn *tenancy.Tenant, a *tenancy.Arrival) (*tenancy.Grant, error) {
		switch {
		case tn.Policy.Revision == 1:
			return old, nil
		case away.Load():
			asked.Add(1)
			return nil, errs.New(errs.Unavailable, "away")
		case a.Client.ClientID == "goes":
			return nil, errs.New(errs.Denied, "not any more")
		}
		return latest, nil
	}, func(c *gateway.Config) { c.Record = func(_ string, d *tenancy.Decision) { decisions <- d } })
	away.Store(true)
	stays, goes := w.dial("mqtt").mustConnect(hello("stays")), w.dial("mqtt").mustConnect(hello("goes"))
	w.dir.edit("acme", func(t *tenancy.Tenant) { t.Policy = &tenancy.PolicyRef{Revision: 2} })
	w.dir.changes <- tenancy.Change{Kind: tenancy.TenantChanged, Tenant: "acme"}
	w.eventually("questions", func() bool { return asked.Load() >= 2 })
	reason := func(topic string) mqtt.ReasonCode {
		t.Helper()
		p := publish(topic, "x", 1)
		p.Publish.PacketID = 7
		stays.send(p)
		return stays.want(packet.PUBACK).Ack.Reason
	}
	if r := reason("a"); r.Failed() {
		t.Errorf("while nobody can be asked: %v", r)
	}
	away.Store(false)
	if d := goes.want(packet.DISCONNECT).Disconnect; d.Reason != mqtt.NotAuthorized || d.ReasonString != "not any more" {
		t.Errorf("DISCONNECT %v %q", d.Reason, d.ReasonString)
	}
	w.eventually("the new grant", func() bool { return reason("a") == mqtt.NotAuthorized })
	if r := reason("b"); r.Failed() {
		t.Errorf("publish: %v", r)
	}
	for {
		d := <-decisions
		if d.Allowed {
			continue
		}
		if d.Topic != "a" || d.Revision != 2 || d.Class != "test" || d.Client.ClientID != "stays" || d.ID == "" || d.At.IsZero() {
			t.Errorf("recorded %+v", d)
		}
		break
	}
}
