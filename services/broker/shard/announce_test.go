// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"testing"

	"github.com/manormq/manor/infra/mqtt"
)

// What the server says on $SYS reaches who asks for that in one tenant, in every
// shard, and nobody with a wildcard in front [MQTT-4.7.2-1].
func TestAnnounce(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		var listeners []*client
		for _, id := range []string{"a", "b", "c", "d"} {
			c := w.connect(id)
			c.subscribe("$SYS/#", 1)
			listeners = append(listeners, c)
		}
		wild, other := w.connect("wild"), w.connect("other", inTenant("other"))
		wild.subscribe("#", 1)
		wild.subscribe("+/tenant/connections", 1)
		if !w.set.Tenant("acme").Listens() || w.set.Tenant("other").Listens() {
			t.Error("expected acme to listen, and the other tenant not to")
		}
		other.subscribe("$SYS/#", 1)
		w.set.Announce("acme", []mqtt.Message{message("$SYS/tenant/connections", "5", 0, false), message("$SYS/tenant/sessions", "1", 0, false)})
		for _, c := range listeners {
			c.wantDeliver("5", 0)
			c.wantDeliver("1", 0)
		}
		wild.silent()
		other.silent()
		if in, out := w.set.Tenant("acme").Flow(); in != 0 || out != 8 {
			t.Errorf("counted %d in and %d out, expected 0 and 8", in, out)
		}
	})
}
