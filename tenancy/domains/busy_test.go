// SPDX-License-Identifier: Apache-2.0

package domains

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// Without a turn at the DNS a domain is looked at again in a moment, and nothing is held
// against it.
func TestRun_NoTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.make(tenancy.CertificateACME)
		was := w.after(time.Minute)
		w.dns(errs.Coded(errs.Unavailable, "domain_lookups_busy", "too many"))
		if d := w.after(time.Until(was.NextRenewal) + time.Minute); d.State != tenancy.DomainActive || d.LastError != "" || d.Revision != was.Revision {
			t.Errorf("%+v", d)
		}
		if _, _, err := w.all[0].Verify(t.Context(), "acme", fqdn, 0); !errs.Is(err, errs.Unavailable) || w.after(0).LastError != "" {
			t.Errorf("asked for: %v", err)
		}
		w.dns(nil)
		if d := w.after(2 * againAfter); d.State != tenancy.DomainActive || w.serial() != "3" {
			t.Errorf("with a turn: %+v", d)
		}
	})
}
