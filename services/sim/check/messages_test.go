// SPDX-License-Identifier: Apache-2.0

package check

import (
	"fmt"
	"strings"
	"testing"

	"github.com/manormq/manor/infra/mqtt"
)

// TestMessages_Delivered holds what is against a promise when it comes, and what is excused by what has
// happened since the message was published.
func TestMessages_Delivered(t *testing.T) {
	here, there := Place{Broker: "b1", Partition: 1}, Place{Broker: "b2", Partition: 2}
	const one, two = "p 1@acme", "p 2@acme"
	for _, tt := range []struct {
		name string
		do   func(m *Messages)
		want string // a part of it
	}{
		{"once", func(m *Messages) { m.Delivered("s", one, false, 1, 1, there) }, ""},
		{"another tenant's", func(m *Messages) { m.Delivered("s", "p 1@globex", false, 1, 1, there) }, "another tenant's"},
		{"another tenant's will", func(m *Messages) { m.Delivered("s", "will of p 1@globex", false, 1, 1, there) }, "another tenant's"},
		{"with DUP", func(m *Messages) { m.Delivered("s", one, true, 1, 1, there) }, "the first time"},
		{"with DUP after a connection", func(m *Messages) { m.Interrupted("s"); m.Delivered("s", one, true, 2, 1, there) }, ""},
		{"with DUP after the publisher's broker was lost", func(m *Messages) { m.BrokerLost("b1"); m.Delivered("s", one, true, 1, 1, there) }, ""},
		{"with DUP after the receiver's broker was lost", func(m *Messages) { m.BrokerLost("b2"); m.Delivered("s", one, true, 1, 1, there) }, ""},
		{"with DUP after another broker was lost", func(m *Messages) { m.BrokerLost("b3"); m.Delivered("s", one, true, 1, 1, there) }, "the first time"},
		{"with DUP after their link was lost", func(m *Messages) { m.LinkLost("b1", "b2"); m.Delivered("s", one, true, 1, 1, there) }, ""},
		{"with DUP after the link back was lost", func(m *Messages) { m.LinkLost("b2", "b1"); m.Delivered("s", one, true, 1, 1, there) }, "the first time"},
		{"with DUP after another link was lost", func(m *Messages) { m.LinkLost("b1", "b3"); m.Delivered("s", one, true, 1, 1, there) }, "the first time"},
		{"with DUP after the publisher's partition was served anew", func(m *Messages) { m.PartitionServed(1); m.Delivered("s", one, true, 1, 1, there) }, ""},
		{"with DUP after the receiver's partition was served anew", func(m *Messages) { m.PartitionServed(2); m.Delivered("s", one, true, 1, 1, there) }, ""},
		{"with DUP after the receiver's broker has lost another partition", func(m *Messages) { m.GivenUp("b2"); m.Delivered("s", one, true, 1, 1, there) }, ""},
		{"with DUP after another broker has lost another partition", func(m *Messages) { m.GivenUp("b9"); m.Delivered("s", one, true, 1, 1, there) }, "the first time"},
		{"with DUP after another partition was served anew", func(m *Messages) { m.PartitionServed(3); m.Delivered("s", one, true, 1, 1, there) }, "the first time"},
		{"with DUP after the tenant moved", func(m *Messages) { m.TenantMoved(); m.Delivered("s", one, true, 1, 1, there) }, ""},
		{"with DUP after another device had another connection", func(m *Messages) { m.Interrupted("o"); m.Delivered("s", one, true, 1, 1, there) }, "the first time"},
		{"twice", func(m *Messages) {
			m.Delivered("s", one, false, 1, 1, there)
			m.Delivered("s", one, false, 1, 2, there)
		}, "again, with no connection and no broker lost on its way"},
		{"twice, sent twice", func(m *Messages) {
			m.all[0].Again = true
			m.Delivered("s", one, false, 1, 1, there)
			m.Delivered("s", one, false, 1, 2, there)
		}, ""},
		{"twice, with the publisher's connection lost", func(m *Messages) {
			m.Delivered("s", one, false, 1, 1, there)
			m.Interrupted("p")
			m.Delivered("s", one, false, 1, 2, there)
		}, ""},
		{"again on another connection", func(m *Messages) {
			m.Delivered("s", one, false, 1, 1, there)
			m.Interrupted("s")
			m.Delivered("s", one, true, 2, 1, there)
		}, ""},
		{"again on another connection, without DUP", func(m *Messages) {
			m.Delivered("s", one, false, 1, 1, there)
			m.Interrupted("s")
			m.Delivered("s", one, false, 2, 1, there)
		}, "again without DUP"},
		{"under way at its UNSUBSCRIBE", func(m *Messages) {
			m.Unsubscribing("s", "t/#")
			m.Unsubscribed("s", "t/#")
			m.Delivered("s", one, false, 1, 1, there)
		}, ""},
		{"published after its UNSUBACK", func(m *Messages) {
			m.Unsubscribing("s", "t/#")
			m.Unsubscribed("s", "t/#")
			m.Publish("p", 2, mqtt.AtLeastOnce, here)
			m.Delivered("s", two, false, 1, 1, there)
		}, "published after its UNSUBACK"},
		{"published after its UNSUBACK, and it subscribes anew", func(m *Messages) {
			m.Unsubscribing("s", "t/#")
			m.Unsubscribed("s", "t/#")
			m.Publish("p", 2, mqtt.AtLeastOnce, here)
			m.Subscribing("s", "t/#")
			m.Delivered("s", two, false, 1, 1, there)
		}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			m := &Messages{Mark: "@acme", Broken: func(format string, args ...any) { got = fmt.Sprintf(format, args...) }}
			m.Subscribed("s", "t/#")
			m.Interrupted("s")
			m.Interrupted("p")
			m.Publish("p", 1, mqtt.AtLeastOnce, here)
			tt.do(m)
			if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
				t.Errorf("got %q, expected %q", got, tt.want)
			}
		})
	}
}

// TestMessages_Unsubscribed holds what is owed to who has unsubscribed: what was acknowledged before it
// sent the UNSUBSCRIBE, and nothing else.
func TestMessages_Unsubscribed(t *testing.T) {
	here, there := Place{Broker: "b1", Partition: 1}, Place{Broker: "b2", Partition: 2}
	m := &Messages{}
	m.Subscribed("s", "t/#")
	m.Publish("p", 1, mqtt.AtLeastOnce, here)
	before := m.Publish("p", 2, mqtt.AtLeastOnce, here)
	m.Acked(before)
	m.Unsubscribing("s", "t/#")
	m.Acked(m.all[0])
	m.Acked(m.Publish("p", 3, mqtt.AtLeastOnce, here))
	if got := m.Missing(); !strings.Contains(got, before.Payload) {
		t.Errorf("got %q, expected %q to be missing", got, before.Payload)
	}
	m.Delivered("s", before.Payload, false, 1, 1, there)
	if got := m.Missing(); got != "" {
		t.Errorf("got %q, expected nothing to be missing", got)
	}
}
