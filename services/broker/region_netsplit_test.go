// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/partition"
)

// cut has two brokers not reach each other until heal is called; both reach the others
// and the bus.
func (w *town) cut(a, b *house) (heal func()) {
	point := func(h, o *house, at string) {
		peers := map[string]string{}
		for _, m := range h.region.members.Snapshot().Members {
			if m.Name != h.name {
				peers[m.Name] = m.Cluster
			}
		}
		if at != "" {
			peers[o.name] = at
		}
		h.region.mesh.SetPeers(peers)
	}
	const nobody = "127.0.0.1:1" // nobody listens there
	point(a, b, nobody)
	point(b, a, nobody)
	return func() {
		point(a, b, "")
		point(b, a, "")
	}
}

// at returns a client that is connected to h.
func (w *town) at(h *house, name string, expiry uint32) *resident {
	w.t.Helper()
	for i := 0; ; i++ {
		id := fmt.Sprint(name, "-", i)
		if h.shards.Serves(ownPartition(id)) {
			return w.connect(id, expiry)
		}
	}
}

// ownPartition is the partition of a client id in a town.
func ownPartition(id string) partition.ID {
	var cell []partition.ID
	for p := range partition.ID(16) {
		cell = append(cell, p)
	}
	return partition.Choose(cell, id)
}

// foreign returns a client id whose partition is followed by h, and not served there.
func (w *town) foreign(h *house, name string) string {
	for i := 0; ; i++ {
		id := fmt.Sprint(name, "-", i)
		p := ownPartition(id)
		if table := h.region.host.Entry(p).Table; !h.shards.Serves(p) && table.IsInSync(partition.Broker(h.name)) {
			return id
		}
	}
}

// Two brokers do not reach each other: a publisher at one of them, with a subscriber at
// the other, is acknowledged at once if its tenant has it so, and waits if not. When
// they do again, everything comes in order, and QoS 2 once.
func TestRegion_NetsplitPublish(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("half a minute")
	}
	w := newTown(t, 3)
	a, b := w.brokers[0], w.brokers[1]
	sub := w.at(b, "sub", 3600)
	sub.subscribe("t/#", mqtt.ExactlyOnce)
	limits := limitless
	limits.Settings.HandOff = true
	on := w.at(a, "on", 3600)
	on.send(link.UpFrame{Kind: link.UpLimits, Limits: &link.NewLimits{SessionExpiry: 3600, Limits: limits}}) // a live change
	off := w.at(a, "off", 3600)
	on.publish(mqtt.AtLeastOnce, "t/before", "before", 1)
	on.want(link.DownAck)
	sub.wantPayload("before 1")
	sub.send(link.UpFrame{Kind: link.UpAck, Ack: mqtt.Puback, PacketID: sub.want(link.DownDeliver).PacketID})
	heal := w.cut(a, b)
	off.publish(mqtt.AtLeastOnce, "t/off", "off", 1)
	const n = 20
	for i := range n {
		qos := mqtt.QoS(1 + i%2)
		on.publish(qos, fmt.Sprint("t/", qos), fmt.Sprintf("on-%d", i), uint16(i+1))
	}
	acked := map[uint16]bool{}
	for range n {
		f := on.want(link.DownAck)
		if f.Reason.Failed() {
			t.Errorf("publish %d is answered %v", f.PacketID, f.Reason)
		}
		acked[f.PacketID] = true
	}
	if len(acked) != n {
		t.Errorf("%d were acknowledged", len(acked))
	}
	if bytes := a.shards.Tenant("acme").HandedOff(); bytes == 0 {
		t.Error("nothing is handed off")
	}
	select {
	case f := <-off.frames:
		t.Errorf("a publisher without the setting got %+v", f)
	case got := <-sub.payload:
		t.Errorf("the subscriber got %q", got)
	case <-time.After(500 * time.Millisecond):
	}
	heal()
	off.want(link.DownAck)
	got := sub.collect(2 * time.Second)
	of := func(odd int) (out []string) {
		for _, p := range got {
			var i int
			if _, err := fmt.Sscanf(p, "on-%d", &i); err == nil && i%2 == odd {
				out = append(out, p)
			}
		}
		return out
	}
	for odd := range 2 {
		var want []string
		for i := odd; i < n; i += 2 {
			want = append(want, fmt.Sprintf("on-%d", i))
		}
		have := of(odd)
		if odd == 0 { // QoS 1 may come twice
			have = slices.Compact(have)
		}
		if diff := cmp.Diff(want, have); diff != "" {
			t.Errorf("at QoS %d (-want +got):\n%s", odd+1, diff)
		}
	}
	if !slices.Contains(got, "off") {
		t.Errorf("off is missing in %q", got)
	}
	w.eventually("nothing is handed off", func() string {
		if n := a.shards.Tenant("acme").HandedOff(); n != 0 {
			return fmt.Sprintf("%d bytes", n)
		}
		return ""
	})
}

// A guest at another broker gets what is published anywhere, and leaves when its
// partition comes there.
func TestRegion_Guest(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("seconds of work")
	}
	w := newTown(t, 3)
	at := w.brokers[0]
	id := w.foreign(at, "guest")
	own := w.connect(id, 3600) // the session on the other side
	own.subscribe("own", mqtt.AtLeastOnce)
	g := &resident{town: w, id: id, at: at, gone: at.gone, frames: make(chan link.DownFrame, 100), payload: make(chan string, 100)}
	g.link = at.Attach(g)
	limits := limitless
	limits.Settings.Subscribe = true
	g.send(link.UpFrame{Kind: link.UpOpen, Open: &link.Open{Tenant: "acme", ClientID: mqtt.ClientID(id), Guest: true, ReceiveMaximum: 100, Credit: 1 << 40, Limits: limits}})
	if f := g.want(link.DownOpened); f.SessionPresent {
		t.Error("the guest has a session")
	}
	g.subscribe("g", mqtt.AtLeastOnce)
	pub := w.connect("pub", 0)
	pub.publish(mqtt.AtLeastOnce, "g", "hello", 1)
	pub.want(link.DownAck)
	g.wantPayload("hello 1")
	own.at.stop() // its partition comes to the one that follows
	w.eventually("the guest is sent back", func() string {
		select {
		case f := <-g.frames:
			if f.Kind == link.DownClose && f.Reason == mqtt.UseAnotherServer {
				return ""
			}
		default:
		}
		return "not yet"
	})
	own = w.connect(id, 3600)
	pub = w.connect("pub", 0)
	pub.publish(mqtt.AtLeastOnce, "own", "kept", 1)
	own.wantPayload("kept 1")
}
