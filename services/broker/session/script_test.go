// SPDX-License-Identifier: Apache-2.0

package session

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/manormq/manor/infra/mqtt"
)

// Each script in testdata is one situation: events in, effects out. Run with
// -rewrite to write what comes out, and read the difference before committing.
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		var (
			s      = New(1, "c")
			now    int64
			tokens []Token
			seq    uint64
		)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			var fx Effects
			e := &Event{}
			arg := func(name string, def int) int {
				if !d.HasArg(name) {
					return def
				}
				var v int
				d.ScanArgs(t, name, &v)
				return v
			}
			e.Packet, e.QoS = uint16(arg("id", 0)), mqtt.QoS(arg("qos", 0))
			e.Reason = mqtt.ReasonCode(arg("reason", 0))
			switch d.Cmd {
			case "attach":
				e.Kind = Attach
				e.Open = &Opening{
					Present: d.HasArg("present"), Asked: d.HasArg("asked"), Expiry: uint32(arg("expiry", 0)), Credit: 1 << 20,
					ReceiveMaximum: uint16(arg("window", 20)), InboundMaximum: uint16(arg("inbound", 20)),
					Window: uint16(arg("inflight", 0)), Retry: uint16(arg("retry", 0)),
				}
				if d.HasArg("will") {
					e.Open.Will = &mqtt.Will{Message: mqtt.Message{Topic: []byte("will")}, Delay: uint32(arg("will", 0))}
				}
			case "resume":
				e.Kind = Resume
				e.Carried = &Carried{ReceiveMaximum: uint16(arg("window", 20)), InboundMaximum: 20}
				if d.HasArg("resend") {
					e.Carried.Resend = []uint16{uint16(arg("resend", 0))}
				}
			case "detach":
				e.Kind, e.Cause = Detach, Lost
				if d.HasArg("normal") {
					e.Cause = Normal
				}
				if d.HasArg("expiry") {
					v := uint32(arg("expiry", 0))
					e.Expiry = &v
				}
			case "takeover":
				e.Kind, e.Quiet = TakeOver, d.HasArg("quiet")
			case "adjust":
				e.Kind, e.Window, e.Retry = Adjust, uint16(arg("inflight", 0)), uint16(arg("retry", 0))
				if d.HasArg("expiry") {
					v := uint32(arg("expiry", 0))
					e.Expiry = &v
				}
			case "discard":
				e.Kind = Discard
			case "publish":
				e.Kind = Publish
			case "routed":
				e.Kind = Routed
				e.Token = tokens[arg("token", 0)]
			case "puback", "pubrec", "pubrel", "pubcomp":
				e.Kind = Ack
				e.Ack = map[string]mqtt.AckKind{"puback": mqtt.Puback, "pubrec": mqtt.Pubrec, "pubrel": mqtt.Pubrel, "pubcomp": mqtt.Pubcomp}[d.Cmd]
			case "too-large":
				e.Kind = TooLarge
			case "credit":
				e.Kind, e.Bytes = Credit, uint64(arg("bytes", 0))
			case "enqueued":
				seq++
				e.Kind, e.Seq, e.Size = Enqueued, seq, arg("size", 100)
			case "tick":
				now += int64(arg("seconds", 0)) * 1000
				e.Kind = Tick
			case "subscribe", "unsubscribe":
				e.Kind, e.Limit = Subscribe, int64(arg("limit", -1))
				for f := range strings.FieldsSeq(d.Input) {
					e.Subs = append(e.Subs, mqtt.Subscription{Filter: f, QoS: e.QoS})
					e.Filter = append(e.Filter, f)
				}
				if d.Cmd == "unsubscribe" {
					e.Kind = Unsubscribe
				}
			case "restart":
				r := Restore(1, "c", s.Stored())
				s.Inflights(func(id uint16, st State, seq uint64) {
					r.RestoreInflight(id, Record{State: st, Seq: seq, Size: 100, Order: s.out.flights.get(id).order})
				})
				s.Inbounds(func(id uint16) { r.RestoreInbound(id, true) })
				s = r
				return "ok\n"
			default:
				d.Fatalf(t, "unknown event %s", d.Cmd)
			}
			s.Step(now, e, &fx)
			for _, p := range fx.Route {
				if p.Token != 0 {
					tokens = append(tokens, p.Token)
				}
			}
			return describe(&fx)
		})
	})
}

func describe(fx *Effects) string {
	var b strings.Builder
	names := map[RecordKind]string{
		PutSession: "put session", PutSubscription: "put subscription", DeleteSubscription: "delete subscription",
		PutInbound: "put inbound", DeleteInbound: "delete inbound", PutInflight: "put inflight",
		DeleteInflight: "delete inflight", DeleteQueued: "delete queued",
	}
	for _, r := range fx.Save {
		fmt.Fprintf(&b, "save: %s", names[r.Kind])
		switch r.Kind {
		case PutInflight:
			fmt.Fprintf(&b, " id=%d seq=%d state=%d", r.Packet, r.Seq, r.State)
		case PutInbound, DeleteInbound, DeleteInflight:
			fmt.Fprintf(&b, " id=%d", r.Packet)
		case DeleteQueued:
			fmt.Fprintf(&b, " seq=%d", r.Seq)
		case PutSubscription:
			fmt.Fprintf(&b, " %s", r.Sub.Filter)
		case DeleteSubscription:
			fmt.Fprintf(&b, " %s", r.Filter)
		case PutSession:
		}
		b.WriteByte('\n')
	}
	for _, p := range fx.Route {
		switch {
		case p.Will != nil:
			b.WriteString("route: will\n")
		case p.Token != 0:
			fmt.Fprintf(&b, "route: id=%d exact=%v\n", p.Packet, p.Exact)
		default:
			b.WriteString("route\n")
		}
	}
	for _, o := range fx.Send {
		b.WriteString("send")
		if o.AfterCommit {
			b.WriteString(" after commit")
		}
		switch o.Kind {
		case OutOpened:
			fmt.Fprintf(&b, ": OPENED present=%v", o.Present)
		case OutDeliver:
			fmt.Fprintf(&b, ": DELIVER id=%d qos=%d seq=%d dup=%v", o.Packet, o.QoS, o.Seq, o.Dup)
		case OutAck:
			fmt.Fprintf(&b, ": %s id=%d %s", o.Ack, o.Packet, o.Reason)
		case OutSuback:
			fmt.Fprintf(&b, ": SUBACK %v new=%v", o.Reasons, o.New)
		case OutUnsuback:
			fmt.Fprintf(&b, ": UNSUBACK %v", o.Reasons)
		case OutClose:
			fmt.Fprintf(&b, ": CLOSE %s", o.Reason)
		}
		b.WriteByte('\n')
	}
	if fx.Ended {
		b.WriteString("ended\n")
	}
	if b.Len() == 0 {
		return "nothing\n"
	}
	return b.String()
}
