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

// A budget is how many allocations a packet may cost the machine, its codec
// included, once a connection has seen one like it.
type budget struct {
	name   string
	v      packet.Version
	grant  *tenancy.Grant
	in     []*packet.Packet // of the client, of one read
	down   []link.DownFrame // what the broker then says
	frames int              // for the broker
	out    int              // packets to the client
	most   float64
}

func publishOf(topic string, qos mqtt.QoS, alias uint16) *packet.Packet {
	p := &packet.Packet{Type: packet.PUBLISH, Publish: packet.Publish{TopicAlias: alias, HasTopicAlias: alias > 0, Message: mqtt.Message{Topic: []byte(topic), Payload: []byte("payload"), QoS: qos}}}
	if qos > 0 {
		p.Publish.PacketID = 5
	}
	return p
}

// budgets are those of the packets of a steady connection, which cost nothing,
// and of SUBSCRIBE, whose filters are kept.
func budgets(t *testing.T) (all []budget) {
	own, err := tenancy.NewGrant(1, []string{"a/#"}, []string{"#"})
	if err != nil {
		t.Fatal(err)
	}
	ack := func(typ packet.Type) *packet.Packet {
		return &packet.Packet{Type: typ, Ack: packet.Ack{PacketID: 5}}
	}
	deliver := func(qos mqtt.QoS) link.DownFrame {
		f := link.DownFrame{Kind: link.DownDeliver, QoS: qos}
		if qos > 0 {
			f.PacketID = 7
		}
		return f
	}
	acked := func(kind mqtt.AckKind) link.DownFrame {
		return link.DownFrame{Kind: link.DownAck, Ack: kind, PacketID: 5}
	}
	subscribe := func(filters ...string) *packet.Packet {
		s := &packet.Subscribe{PacketID: 5}
		for _, f := range filters {
			s.Subscriptions = append(s.Subscriptions, mqtt.Subscription{Filter: f, QoS: 1})
		}
		return &packet.Packet{Type: packet.SUBSCRIBE, Subscribe: s}
	}
	granted := func(n int) link.DownFrame {
		return link.DownFrame{Kind: link.DownSuback, PacketID: 5, Reasons: make([]mqtt.ReasonCode, n)}
	}
	for _, v := range []packet.Version{packet.V311, packet.V5} {
		all = append(
			all,
			budget{name: "PUBLISH at QoS 0 in", v: v, in: []*packet.Packet{publishOf("a/b", 0, 0)}, frames: 1},
			budget{name: "PUBLISH at QoS 1 in", v: v, in: []*packet.Packet{publishOf("a/b", 1, 0)}, down: []link.DownFrame{acked(mqtt.Puback)}, frames: 1, out: 1},
			budget{name: "PUBLISH in under a policy", v: v, grant: own, in: []*packet.Packet{publishOf("a/b", 0, 0), publishOf("a/c", 0, 0)}, frames: 2},
			budget{name: "PUBLISH at QoS 2 in", v: v, in: []*packet.Packet{publishOf("a/b", 2, 0), ack(packet.PUBREL)}, down: []link.DownFrame{acked(mqtt.Pubrec), acked(mqtt.Pubcomp)}, frames: 2, out: 2},
			budget{name: "PUBLISH at QoS 0 out", v: v, down: []link.DownFrame{deliver(0)}, out: 1},
			budget{name: "PUBLISH at QoS 1 out", v: v, in: []*packet.Packet{ack(packet.PUBACK)}, down: []link.DownFrame{deliver(1)}, frames: 1, out: 1},
			budget{name: "PUBLISH at QoS 2 out", v: v, in: []*packet.Packet{ack(packet.PUBREC), ack(packet.PUBCOMP)}, down: []link.DownFrame{deliver(2), acked(mqtt.Pubrel)}, frames: 2, out: 2},
			budget{name: "PINGREQ", v: v, in: []*packet.Packet{{Type: packet.PINGREQ}}, out: 1},
			// The packet, its list of filters as it grows, and each filter.
			budget{name: "SUBSCRIBE", v: v, in: []*packet.Packet{subscribe("a/b")}, down: []link.DownFrame{granted(1)}, frames: 1, out: 1, most: 3},
			budget{name: "SUBSCRIBE with 8 filters", v: v, in: []*packet.Packet{subscribe("a/b", "a/c", "a/d", "a/e", "a/f", "a/g", "a/h", "a/i")}, down: []link.DownFrame{granted(8)}, frames: 1, out: 1, most: 13},
		)
	}
	return append(
		all,
		budget{name: "PUBLISH with an alias in", v: packet.V5, in: []*packet.Packet{publishOf("a/b", 0, 1), publishOf("", 0, 1)}, frames: 2},
		// The reason string.
		budget{name: "PUBLISH at QoS 1 that is refused", v: packet.V5, grant: own, in: []*packet.Packet{publishOf("no", 1, 0)}, out: 1, most: 1},
	)
}

// What a connection does again and again allocates nothing in its machine, and
// what it does seldom no more than it keeps.
func TestPacketsAllocateTheirBudget(t *testing.T) {
	for _, b := range budgets(t) {
		t.Run(b.v.String()+"/"+b.name, func(t *testing.T) {
			if b.grant == nil {
				b.grant = tenancy.DefaultGrant()
			}
			x := newMeasured(t, &b)
			x.turn() // fills aliases, the memory of the grant, and the buffers
			frames, out := x.frames, x.packets()
			const runs = 200
			allocs := testing.AllocsPerRun(runs, x.turn)
			// AllocsPerRun turns once more, before it counts.
			if x.frames != (runs+2)*frames || frames != b.frames || out != b.out {
				t.Fatalf("%d frames for the broker, then %d in %d turns, and %d packets to the client, expected %d and %d each turn", frames, x.frames, runs+2, out, b.frames, b.out)
			}
			if allocs > b.most {
				t.Errorf("%v allocations, expected at most %v", allocs, b.most)
			}
		})
	}
}

// measured is a connection in the midst of its life.
type measured struct {
	t      *testing.T
	b      *budget
	c      conn.Conn
	dec    packet.Decoder
	p      packet.Packet
	fx     conn.Effects
	in     []byte
	batch  link.Down
	out    []byte
	frames int // for the broker, of all turns
}

func newMeasured(t *testing.T, b *budget) *measured {
	x := &measured{t: t, b: b, batch: link.Down{Messages: []mqtt.Message{{Topic: []byte("a/b"), Payload: []byte("payload")}}}}
	hello := &packet.Connect{Version: b.v, ClientID: "c", CleanStart: true, TopicAliasMaximum: 10}
	x.c.Connect(hello)
	id := &tenancy.Identity{Tenant: &tenancy.Tenant{ID: "acme", Limits: tenancy.NoLimits()}, Grant: b.grant}
	if _, r := x.c.Accept(hello, conn.Admission{Identity: id}); r.Reason.Failed() {
		t.Fatal(r.Text)
	}
	if _, r := x.c.Receive(nil, nil, &link.DownFrame{Kind: link.DownOpened, Bytes: 1 << 60}); !r.Opened {
		t.Fatal("no CONNACK")
	}
	for _, p := range b.in {
		x.in = packet.Append(x.in, b.v, p, 0)
	}
	return x
}

// turn is one read of the client, and what the broker says to it, as the shell
// does them.
func (x *measured) turn() {
	x.out = x.out[:0]
	for rest := x.in; len(rest) > 0; {
		n, err := x.dec.Decode(rest, x.b.v, x.c.PacketMax(packet.Type(rest[0]>>4)), &x.p)
		if err != nil || n == 0 || !x.c.MayRead(x.p.Type) {
			x.t.Fatal("a packet is not handled", x.p.Type, err)
		}
		x.c.Handle(&x.p, &x.fx)
		rest = rest[n:]
	}
	x.out = x.c.Apply(x.out, &x.fx)
	x.frames += len(x.fx.Up.Frames)
	if x.fx.Close.Ended {
		x.t.Fatal("the connection ends", x.fx.Close.Text)
	}
	x.fx.Reset()
	x.dec.Reset()
	for i := range x.b.down {
		var r conn.Result
		if x.out, r = x.c.Receive(x.out, &x.batch, &x.b.down[i]); r.Close.Ended || r.TooLarge || r.Denied {
			x.t.Fatal("a frame of the broker is not passed on")
		}
	}
}

// packets counts those that the last turn had for the client.
func (x *measured) packets() (n int) {
	var dec packet.Decoder
	for rest := x.out; len(rest) > 0; n++ {
		var p packet.Packet
		used, err := dec.Decode(rest, x.b.v, 0, &p)
		if err != nil || used == 0 {
			x.t.Fatalf("% X: %v", rest, err)
		}
		rest = rest[used:]
	}
	return n
}
