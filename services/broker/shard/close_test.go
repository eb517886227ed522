// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"testing"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
)

// A close that the client has asked for is answered when the session has heard of
// it, also of a channel that has no session any more; others are not.
func TestClose_Answered(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		connected := func(id string) bool {
			a := w.set.Ask(&link.Query{Kind: link.QueryClient, Tenant: "acme", ClientID: mqtt.ClientID(id)})
			return a.Found && a.Clients[0].Connected
		}
		for cause, answered := range map[link.CloseCause]bool{
			link.CloseNormal: true, link.CloseWithWill: true, link.CloseLost: false, link.CloseRevoked: false,
		} {
			a := w.connect("a", persistent)
			a.close(cause)
			if answered {
				if r := a.want(link.DownClose); r.Reason != mqtt.Success || connected("a") {
					t.Errorf("cause %d: %v", cause, r.Reason)
				}
			}
			a.silent()
		}
		old := w.connect("b", persistent)
		w.connect("b", persistent)
		if r := old.want(link.DownClose); r.Reason != mqtt.SessionTakenOver {
			t.Errorf("taken over: %v", r.Reason)
		}
		old.close(link.CloseNormal)
		if old.want(link.DownClose); !connected("b") {
			t.Error("the close of a connection that was taken over ended the other one")
		}
	})
}
