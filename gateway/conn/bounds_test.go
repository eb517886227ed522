// SPDX-License-Identifier: Apache-2.0

package conn_test

import (
	"testing"

	"github.com/manormq/manor/gateway/conn"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/tenancy"
)

// accepted returns a machine whose client was let in, with that window for what
// it sends, and what it was granted for what it receives.
func accepted(t *testing.T, window uint64, grant *tenancy.Grant, edit func(*tenancy.Limits)) (c *conn.Conn, credit uint64) {
	t.Helper()
	limits := tenancy.NoLimits()
	if edit != nil {
		edit(&limits)
	}
	c = &conn.Conn{}
	p := &packet.Connect{Version: packet.V5, ClientID: "c", CleanStart: true}
	c.Connect(p)
	o, r := c.Accept(p, conn.Admission{Identity: &tenancy.Identity{Tenant: &tenancy.Tenant{ID: "acme", Limits: limits}, Grant: grant}})
	if r.Reason.Failed() {
		t.Fatal(r.Text)
	}
	c.Receive(nil, nil, &link.DownFrame{Kind: link.DownOpened, Bytes: window})
	return c, o.Credit
}

// A session with thousands of overlapping subscriptions receives small messages
// whose packets are large, and yet no more than its credit.
func TestSubscriptionIdentifiersCountAgainstCredit(t *testing.T) {
	c, credit := accepted(t, 1<<20, tenancy.DefaultGrant(), nil)
	ids := make([]uint32, 2000)
	for i := range ids {
		ids[i] = 200_000_000 + uint32(i)
	}
	m := mqtt.Message{Topic: []byte("a/b")}
	b := &link.Down{Messages: []mqtt.Message{m}}
	f := &link.DownFrame{Kind: link.DownDeliver, SubscriptionIDs: ids}
	received, used, packetSize := 0, uint64(0), 0
	for used < credit {
		out, _ := c.Receive(nil, b, f)
		packetSize = len(out)
		received += packetSize
		used += uint64(link.DeliverCost(m.Size(), len(ids)))
	}
	if received > int(credit)+packetSize {
		t.Errorf("%d bytes for a socket that takes nothing, expected at most %d and a packet", received, credit)
	}
	if total, ok := c.Credit(0); !ok || total != used+conn.CreditWindow {
		t.Errorf("when the socket has taken all, %d is granted (%v), expected %d", total, ok, used+conn.CreditWindow)
	}
}
