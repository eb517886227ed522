// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"testing"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/tenancy"
)

// While a tenant's policy takes its time for live clients, its bans hold at once, and
// so do the changes of others.
func TestChanges_DoNotWaitForOthers(t *testing.T) {
	w := start(t, nil)
	slow := w.dial("mqtt").mustConnect(hello("slow"))
	banned := w.dial("mqtt").mustConnect(hello("banned"))
	hi := hello("other")
	hi.Username = "beta:dev"
	other := w.dial("mqtt").mustConnect(hi)
	asked, thinks := make(chan struct{}, 10), make(chan struct{})
	w.dir.mu.Lock()
	w.dir.authorize = func(*tenancy.Tenant, *tenancy.Arrival) (*tenancy.Grant, error) {
		w.dir.mu.Unlock() // which Authorize holds
		defer w.dir.mu.Lock()
		asked <- struct{}{}
		<-thinks
		return tenancy.NewGrant(tenancy.GrantRevision(1), []string{"#"}, []string{"#"})
	}
	w.dir.mu.Unlock()
	w.change("acme", func(t *tenancy.Tenant) { t.Policy = &tenancy.PolicyRef{Revision: 1} })
	<-asked
	w.ban("acme", tenancy.Ban{Kind: tenancy.BanClientID, Value: "banned"})
	banned.wantDisconnect(mqtt.AdministrativeAction, "")
	w.change("beta", func(t *tenancy.Tenant) { t.State = tenancy.StateSuspended })
	other.wantDisconnect(mqtt.AdministrativeAction, "")
	close(thinks)
	slow.send(&packet.Packet{Type: packet.PINGREQ})
	slow.want(packet.PINGRESP)
}
