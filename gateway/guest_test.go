// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"slices"
	"testing"
	"time"

	"github.com/manormq/manor/gateway"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/tenancy"
)

// startSplit is startRegion with a tenant that has guest sessions if on, and broker 0
// away.
func startSplit(t *testing.T, on bool) *region {
	r := startRegion(t, 3, true, func(c *gateway.Config) { c.GuestWait, c.OwnerWait = 50*time.Millisecond, 400*time.Millisecond })
	r.dir.edit("acme", func(t *tenancy.Tenant) {
		t.Settings = &tenancy.SettingsOverride{AllowRegisterDuringNetsplit: &on}
	})
	r.brokers[0].lose()
	return r
}

// lasting is hello for a session that lasts, with a will.
func lasting(id string, v packet.Version) *packet.Connect {
	h := hello(id)
	h.Version, h.CleanStart, h.SessionExpiry, h.HasSessionExpiry = v, false, 3600, true
	h.Will = &mqtt.Will{Message: mqtt.Message{Topic: []byte("gone")}}
	return h
}

// A client whose broker is away is a guest at another one, is told so, and goes back
// when its broker is there: without its will.
func TestGuest(t *testing.T) {
	r := startSplit(t, true)
	c := r.dial("mqtt")
	k := c.connect(lasting(idIn(0, 0), packet.V5))
	if k.Reason != mqtt.Success || k.SessionPresent || !k.HasSessionExpiry || k.SessionExpiry != 0 || k.ReasonString == "" {
		t.Fatalf("CONNACK %+v", k)
	}
	at := slices.IndexFunc(r.brokers, func(b *fakeBroker) bool { return b.opened() > 0 })
	if o := r.brokers[at].lastOpen(); at == 0 || !o.Guest || !o.CleanStart || o.SessionExpiry != 0 || o.Will == nil {
		t.Errorf("broker %d was asked for %+v", at, o)
	}
	if r.metric("mqtt_gateway_guests") != 1 || r.metric("mqtt_gateway_guest_sessions_total", "opened") != 1 {
		t.Error("it is not counted")
	}
	c.subscribe("a") // it is a session like others
	r.brokers[0].back()
	if d := c.want(packet.DISCONNECT).Disconnect; d.Reason != mqtt.UseAnotherServer || d.ReasonString == "" {
		t.Errorf("DISCONNECT %v %q", d.Reason, d.ReasonString)
	}
	c.wantEnd()
	r.eventually("the broker hears of a normal end", func() bool {
		return slices.Equal(r.brokers[at].closed(), []link.CloseCause{link.CloseNormal})
	})
	if k := r.dial("mqtt").connect(lasting(idIn(0, 0), packet.V5)); k.Reason != mqtt.Success || k.HasSessionExpiry {
		t.Errorf("at its own broker: CONNACK %+v", k)
	}
	if o := r.brokers[0].lastOpen(); o.Guest || o.SessionExpiry != 3600 {
		t.Errorf("its own broker was asked for %+v", o)
	}
	r.eventually("no guest is left", func() bool { return r.metric("mqtt_gateway_guests") == 0 })
}

// Who cannot be told why has its connection closed.
func TestGuest_Old(t *testing.T) {
	r := startSplit(t, true)
	c := r.any("mqtt", "")
	c.v = packet.V311
	h := lasting(idIn(0, 0), packet.V311)
	c.mustConnect(h)
	r.brokers[0].back()
	c.wantEnd()
}

// Without the setting the client is refused, as before.
func TestGuest_Off(t *testing.T) {
	r := startSplit(t, false)
	if k := r.dial("mqtt").connect(lasting(idIn(0, 0), packet.V5)); k.Reason != mqtt.ServerUnavailable {
		t.Errorf("CONNACK %v", k.Reason)
	}
	for i, b := range r.brokers {
		if b.opened() > 0 {
			t.Errorf("broker %d was asked", i)
		}
	}
}

// A broker that takes no guests is asked again, and the client refused in the end.
func TestGuest_NoneGiven(t *testing.T) {
	r := startSplit(t, true)
	for _, b := range r.brokers[1:] {
		b.refuses(&link.Moved{Partition: 0, Epoch: 1, Broker: ""})
	}
	if k := r.dial("mqtt").connect(lasting(idIn(0, 0), packet.V5)); k.Reason != mqtt.ServerUnavailable {
		t.Errorf("CONNACK %v", k.Reason)
	}
	if r.metric("mqtt_gateway_guest_sessions_total", "refused") == 0 || r.metric("mqtt_gateway_guests") != 0 {
		t.Error("it is not counted")
	}
}

// The owner is back and does not serve: one guest finds out, and the others stay until
// it has let somebody in.
func TestGuest_OneGoesAhead(t *testing.T) {
	r := startSplit(t, true)
	var all []*client
	for i := range 4 {
		all = append(all, r.dial("mqtt").mustConnect(lasting(idIn(0, i), packet.V5)))
	}
	r.brokers[0].refuses(&link.Moved{Partition: 0, Epoch: 1, Broker: "b0"})
	r.brokers[0].back()
	r.eventually("one has gone", func() bool { return r.metric("mqtt_gateway_guest_sessions_total", "ended") == 1 })
	again := r.hello("mqtt", idIn(0, 9))
	r.eventually("the owner was asked", func() bool { return r.brokers[0].opened() > 0 })
	if n := r.metric("mqtt_gateway_guest_sessions_total", "ended"); n != 1 {
		t.Errorf("%v have gone", n)
	}
	if k := again.want(packet.CONNACK).Connack; k.Reason != mqtt.Success || !k.HasSessionExpiry {
		t.Errorf("who is not let in is no guest: CONNACK %+v", k)
	}
	r.brokers[0].refuses(nil)
	r.dial("mqtt").mustConnect(lasting(idIn(0, 10), packet.V5))
	r.eventually("all have gone", func() bool { return r.metric("mqtt_gateway_guests") == 0 })
	for _, c := range all {
		if d := c.want(packet.DISCONNECT).Disconnect; d.Reason != mqtt.UseAnotherServer {
			t.Errorf("DISCONNECT %v", d.Reason)
		}
	}
}

// A guest whose partition moves is ended by its broker, and is a guest again when it comes
// back: at a broker that does not drain, while there is one.
func TestGuest_PartitionMoves(t *testing.T) {
	r := startSplit(t, true)
	for i := range 8 {
		id := idIn(0, i)
		before := [...]int{0, r.brokers[1].opened(), r.brokers[2].opened()}
		c := r.dial("mqtt").mustConnect(lasting(id, packet.V5))
		at := 1
		if r.brokers[2].opened() > before[2] {
			at = 2
		}
		other := 3 - at
		r.drains(other, at, uint64(2+2*i))
		r.brokers[at].down(link.DownFrame{Kind: link.DownClose, Reason: mqtt.UseAnotherServer, Text: "the partition in which this client is a guest moves; connect again"})
		if d := c.want(packet.DISCONNECT).Disconnect; d.Reason != mqtt.UseAnotherServer || d.ReasonString == "" {
			t.Errorf("DISCONNECT %v %q", d.Reason, d.ReasonString)
		}
		c.wantEnd()
		r.eventually("it is no guest any more", func() bool { return r.metric("mqtt_gateway_guests") == 0 })
		n := r.brokers[other].opened()
		c = r.dial("mqtt").mustConnect(lasting(id, packet.V5))
		if o := r.brokers[other].lastOpen(); r.brokers[other].opened() != n+1 || !o.Guest {
			t.Errorf("it is not a guest at the broker that stays: %+v", o)
		}
		_ = c.c.Close()
		r.eventually("it has gone", func() bool { return r.metric("mqtt_gateway_guests") == 0 })
		r.stays(other, at, uint64(3+2*i))
	}
	// With nobody else it is a guest where it can be.
	r.drains(1, 1, 100)
	r.drains(1, 2, 100)
	r.dial("mqtt").mustConnect(lasting(idIn(0, 9), packet.V5))
}

// drains has a broker tell that another one gives up what it owns, stays that it does not.
func (r *region) drains(from, who int, epoch uint64) { r.drain(from, who, epoch, true) }
func (r *region) stays(from, who int, epoch uint64)  { r.drain(from, who, epoch, false) }

func (r *region) drain(from, who int, epoch uint64, on bool) {
	u := &link.TableUpdate{Partitions: partitions, Brokers: r.table.Brokers}
	for _, o := range r.table.Owners {
		if o.Broker == r.table.Brokers[who].Name {
			o.Epoch, o.Draining = epoch, on
			u.Owners = append(u.Owners, o)
		}
	}
	r.brokers[from].link(link.DownFrame{Kind: link.DownTable, Table: u})
}
