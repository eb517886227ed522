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
	const one, two = "p 1@acme", "p 2@acme"
	for _, tt := range []struct {
		name string
		do   func(m *Messages)
		want string // a part of it
	}{
		{"once", func(m *Messages) { m.Delivered("s", one, false, 1, 1) }, ""},
		{"another tenant's", func(m *Messages) { m.Delivered("s", "p 1@globex", false, 1, 1) }, "another tenant's"},
		{"another tenant's will", func(m *Messages) { m.Delivered("s", "will of p 1@globex", false, 1, 1) }, "another tenant's"},
		{"with DUP", func(m *Messages) { m.Delivered("s", one, true, 1, 1) }, "the first time"},
		{"with DUP after a connection", func(m *Messages) { m.Interrupted("s"); m.Delivered("s", one, true, 2, 1) }, ""},
		{"with DUP after a fault", func(m *Messages) { m.Disturbed(); m.Delivered("s", one, true, 1, 1) }, ""},
		{"twice", func(m *Messages) { m.Delivered("s", one, false, 1, 1); m.Delivered("s", one, false, 1, 2) }, "again, with no connection and no broker lost"},
		{"twice, sent twice", func(m *Messages) {
			m.all[0].Again = true
			m.Delivered("s", one, false, 1, 1)
			m.Delivered("s", one, false, 1, 2)
		}, ""},
		{"twice, with the publisher's connection lost", func(m *Messages) {
			m.Delivered("s", one, false, 1, 1)
			m.Interrupted("p")
			m.Delivered("s", one, false, 1, 2)
		}, ""},
		{"again on another connection", func(m *Messages) {
			m.Delivered("s", one, false, 1, 1)
			m.Interrupted("s")
			m.Delivered("s", one, true, 2, 1)
		}, ""},
		{"again on another connection, without DUP", func(m *Messages) {
			m.Delivered("s", one, false, 1, 1)
			m.Interrupted("s")
			m.Delivered("s", one, false, 2, 1)
		}, "again without DUP"},
		{"under way at its UNSUBSCRIBE", func(m *Messages) {
			m.Unsubscribing("s", "t/#")
			m.Unsubscribed("s", "t/#")
			m.Delivered("s", one, false, 1, 1)
		}, ""},
		{"published after its UNSUBACK", func(m *Messages) {
			m.Unsubscribing("s", "t/#")
			m.Unsubscribed("s", "t/#")
			m.Publish("p", 2, mqtt.AtLeastOnce)
			m.Delivered("s", two, false, 1, 1)
		}, "published after its UNSUBACK"},
		{"published after its UNSUBACK, and it subscribes anew", func(m *Messages) {
			m.Unsubscribing("s", "t/#")
			m.Unsubscribed("s", "t/#")
			m.Publish("p", 2, mqtt.AtLeastOnce)
			m.Subscribing("s", "t/#")
			m.Delivered("s", two, false, 1, 1)
		}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			m := &Messages{Mark: "@acme", Broken: func(format string, args ...any) { got = fmt.Sprintf(format, args...) }}
			m.Subscribed("s", "t/#")
			m.Interrupted("s")
			m.Interrupted("p")
			m.Publish("p", 1, mqtt.AtLeastOnce)
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
	m := &Messages{}
	m.Subscribed("s", "t/#")
	m.Publish("p", 1, mqtt.AtLeastOnce)
	before := m.Publish("p", 2, mqtt.AtLeastOnce)
	m.Acked(before)
	m.Unsubscribing("s", "t/#")
	m.Acked(m.all[0])
	m.Acked(m.Publish("p", 3, mqtt.AtLeastOnce))
	if got := m.Missing(); !strings.Contains(got, before.Payload) {
		t.Errorf("got %q, expected %q to be missing", got, before.Payload)
	}
	m.Delivered("s", before.Payload, false, 1, 1)
	if got := m.Missing(); got != "" {
		t.Errorf("got %q, expected nothing to be missing", got)
	}
}
