// SPDX-License-Identifier: Apache-2.0

package domains

import (
	"strings"
	"testing"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/domains/domainstest"
)

func TestResolver(t *testing.T) {
	t.Parallel()
	names := domainstest.NewDNS(t)
	r := newResolver(names.Address, telemetry.Discard())
	d := &tenancy.Domain{Tenant: "acme", FQDN: "mqtt.acme.example", Token: "token"}
	long := strings.Repeat("x", 100) + d.ChallengeValue()
	for _, c := range []struct {
		values []string
		down   bool
		kind   errs.Kind // Internal: no error
		says   string
	}{
		{nil, false, errs.Denied, "found none"},
		{[]string{"v=spf1 -all", "manor-verify=other"}, false, errs.Denied, `found "v=spf1 -all", "manor-verify=other"`},
		{[]string{long}, false, errs.Denied, "…"},
		{[]string{"v=spf1 -all", d.ChallengeValue()}, false, errs.Internal, ""},
		{[]string{d.ChallengeValue()}, true, errs.Unavailable, "did not answer"},
	} {
		names.Text(d.ChallengeName(), c.values...)
		names.Down(c.down)
		err := r.verify(t.Context(), r.asked, d.Tenant, d)
		if (err == nil) != (c.kind == errs.Internal) || err != nil && (errs.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("with %.40q: %v, want %v with %q", c.values, err, c.kind, c.says)
		}
	}
	// Of a wildcard it is looked for at the name that the wildcard is below, where that of
	// another claim to that name may be, too.
	wild := &tenancy.Domain{Tenant: "beta", FQDN: "*.mqtt.acme.example", Token: "other"}
	names.Down(false)
	for values, ok := range map[string]bool{d.ChallengeValue(): false, wild.ChallengeValue(): true} {
		names.Text("_manor-challenge.mqtt.acme.example", values, "v=spf1 -all")
		if err := r.verify(t.Context(), r.asked, wild.Tenant, wild); (err == nil) != ok {
			t.Errorf("the wildcard, with %s: %v", values, err)
		}
	}
	// Nobody there.
	r = newResolver("127.0.0.1:1", telemetry.Discard())
	if err := r.verify(t.Context(), r.due, d.Tenant, d); !errs.Is(err, errs.Unavailable) || strings.Contains(err.Error(), "127.0.0.1") {
		t.Errorf("without a server: %v", err)
	}
}
