// SPDX-License-Identifier: Apache-2.0

package conn_test

import (
	"errors"
	"testing"

	"github.com/manormq/manor/gateway/conn"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/tenancy"
)

// FuzzHandle gives a connection whatever bytes come after CONNECT, answered by
// a broker that acknowledges all. What goes to the client must be packets, and
// nothing follows the end.
func FuzzHandle(f *testing.F) {
	f.Add([]byte{0x32, 6, 0, 1, 'a', 0, 1, 0, 0xC0, 0}, byte(5))
	f.Add([]byte{0x34, 6, 0, 1, 'a', 0, 1, 'x', 0x62, 2, 0, 1, 0xE0, 0}, byte(4))
	f.Add([]byte{0x82, 14, 0, 1, 0, 0, 1, 'a', 1, 0, 4, '$', 'S', '/', '#', 0, 0xA2, 6, 0, 2, 0, 0, 1, 'a'}, byte(5))
	f.Add([]byte{0x30, 8, 0, 1, 'a', 3, 0x23, 0, 1, 'x', 0x30, 6, 0, 0, 3, 0x23, 0, 1}, byte(5))
	f.Fuzz(func(t *testing.T, b []byte, version byte) {
		v := packet.Version(version%3) + packet.V31
		limits := tenancy.NoLimits()
		limits.ReceiveMaximum, limits.TopicAliasMaximum, limits.TopicLength = 3, 2, 20
		var c conn.Conn
		p := &packet.Connect{Version: v, ClientID: "fuzz", CleanStart: true, MaximumPacketSize: 60, TopicAliasMaximum: 2}
		c.Connect(p)
		id := &tenancy.Identity{Tenant: &tenancy.Tenant{ID: "acme", Limits: limits}, Grant: tenancy.DefaultGrant()}
		if _, r := c.Accept(p, conn.Admission{Identity: id}); r.Reason.Failed() {
			t.Fatal(r.Text)
		}
		out, _ := c.Receive(nil, nil, &link.DownFrame{Kind: link.DownOpened, Bytes: 1 << 30})
		var dec packet.Decoder
		var q packet.Packet
		for ended := false; len(b) > 0 && !ended; {
			fx := conn.Effects{Channel: 9}
			n, err := dec.Decode(b, v, 0, &q)
			switch {
			case err != nil:
				var e *packet.Error
				errors.As(err, &e)
				if goesOn := c.Malformed(&q, e, &fx); goesOn == fx.Close.Ended {
					t.Fatalf("goes on %v, close %+v", goesOn, fx.Close)
				}
			case n == 0:
				b = nil
				continue
			case c.MayRead(q.Type):
				c.Handle(&q, &fx)
			}
			if n > 0 && n%5 == 0 { // now and then the tenant changes
				s := tenancy.SettingsOverride{MaximumQoS: new(int64(n % 3)), RetainAvailable: new(n%2 == 0), WildcardAvailable: new(n%3 == 0)}
				if _, cl := c.Change(conn.NewRules(&tenancy.Tenant{ID: "acme", Limits: limits, Settings: &s}, nil)); cl.Ended {
					t.Fatalf("ended by %+v", s)
				}
			}
			b = b[n:]
			out = c.Apply(out, &fx)
			for i := range fx.Up.Frames {
				out = answer(t, &c, out, &fx.Up.Frames[i])
			}
			if ended = fx.Close.Ended; ended {
				out = c.Goodbye(out, fx.Close)
				if after := c.Goodbye(out, fx.Close); len(after) != len(out) {
					t.Fatal("something follows the end")
				}
			}
		}
		for len(out) > 0 {
			n, err := dec.Decode(out, v, 0, &q)
			if err != nil || n == 0 {
				t.Fatalf("to the client goes % X: %v", out, err)
			}
			out = out[n:]
		}
	})
}

// answer is the broker's to one frame.
func answer(t *testing.T, c *conn.Conn, out []byte, f *link.UpFrame) []byte {
	if f.Channel != 9 {
		t.Fatalf("a frame of channel %d", f.Channel)
	}
	down := &link.Down{}
	d := link.DownFrame{PacketID: f.PacketID}
	switch f.Kind {
	case link.UpPublish:
		down.Messages = append(down.Messages, f.Message)
		out, _ = c.Receive(out, down, &link.DownFrame{Kind: link.DownDeliver})
		if f.Message.QoS == 0 {
			return out
		}
		d.Kind, d.Ack = link.DownAck, mqtt.Puback
		if f.Message.QoS == mqtt.ExactlyOnce {
			d.Ack = mqtt.Pubrec
		}
	case link.UpSubscribe:
		d.Kind = link.DownSuback
		for _, s := range f.Subscribe {
			d.Reasons = append(d.Reasons, 0)
			if s.Filter == "" {
				t.Fatal("an empty filter")
			}
		}
	case link.UpUnsubscribe:
		d.Kind = link.DownUnsuback
		for range f.Unsubscribe {
			d.Reasons = append(d.Reasons, 0)
		}
	default:
		return out
	}
	out, _ = c.Receive(out, down, &d)
	return out
}
