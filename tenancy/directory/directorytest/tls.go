// SPDX-License-Identifier: Apache-2.0

package directorytest

import (
	"fmt"
	"testing"

	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/store"
	"github.com/manormq/manor/tenancy/tenancytest"
)

func testClientCAs(t *testing.T, s *store.Store, d tenancy.Directory) {
	ctx := t.Context()
	SignUp(t, s, "acme")
	changes := Watch(t, s, d)
	last := uint64(0)
	for i := range 2 { // the same again has another revision
		cas := &tenancy.ClientCAs{Certificates: tenancytest.NewCA(t, "ca").PEM(), ClientCerts: tenancy.ClientCertsOptional}
		if _, err := s.SetClientCAs(ctx, "acme", 0, cas); err != nil {
			t.Fatal(err)
		}
		changes.Want(t, tenancy.Change{Kind: tenancy.TenantChanged, Tenant: "acme"})
		Eventually(t, func() string {
			tn, err := d.TenantByHost(ctx, "acme.test")
			if err != nil || tn.ClientCAs == nil || tn.ClientCAs.Revision <= last || tn.ClientCAs.Certificates != cas.Certificates {
				return fmt.Sprintf("change %d: %+v %v", i, tn, err)
			}
			last = tn.ClientCAs.Revision
			return ""
		})
	}
	// Another change leaves their revision alone.
	if _, err := s.SetOverrides(ctx, "acme", 0, map[string]int64{"connections": 5}); err != nil {
		t.Fatal(err)
	}
	Eventually(t, func() string {
		tn, err := d.Tenant(ctx, "acme")
		if err != nil || tn.Limits.Connections != 5 || tn.ClientCAs.Revision != last {
			return fmt.Sprintf("%+v %v", tn, err)
		}
		return ""
	})
	if _, err := s.SetClientCAs(ctx, "acme", 0, nil); err != nil {
		t.Fatal(err)
	}
	Eventually(t, func() string {
		if tn, err := d.Tenant(ctx, "acme"); err != nil || tn.ClientCAs != nil {
			return fmt.Sprintf("%+v %v", tn, err)
		}
		return ""
	})
}

// testTickets holds that a directory tells what all gateways derive keys from.
func testTickets(t *testing.T, s *store.Store, d tenancy.Directory) {
	source, ok := d.(interface {
		TicketSecrets() *tenancy.TicketSecrets
	})
	if !ok {
		t.Fatal("expected a directory with TicketSecrets")
	}
	if got := source.TicketSecrets(); got != nil {
		t.Errorf("at first: %+v", got)
	}
	if did, err := s.RotateTickets(t.Context()); err != nil || !did {
		t.Fatalf("rotated %v, %v", did, err)
	}
	Eventually(t, func() string {
		if got := source.TicketSecrets(); got == nil || len(got.Secrets) != 1 {
			return fmt.Sprintf("got %+v", got)
		}
		return ""
	})
}
