// SPDX-License-Identifier: Apache-2.0

package conn_test

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/manormq/manor/gateway/conn"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/tenancy"
)

// script is a connection driven by commands, one a line:
//
//	limits NAME=N ...            the tenant's, before connect; the rest is unlimited
//	settings JSON                the tenant's, before connect or change
//	grant publish=F subscribe=F  what may be done, before connect; else all but $
//	connect v=5 id=x ...         a CONNECT, and what to ask the broker
//	opened window=N [present]    the broker's answers
//	publish|subscribe|... ...    packets of the client, by way of the codec
//	raw HEX                      bytes of the client
//	deliver|ack|suback|...       frames of the broker
//	change                       limits and settings as they are now reach the connection
//	auth reason=N method=M data=D
//	authenticating COMMAND       a packet before CONNACK
//	challenge reason=N data=D    the server's AUTH
//	credit backlog=N             what the gateway would grant now
//	mayread                      which packets may be handled now
//	keepalive                    how long the client may be silent
//
// Lines of the output begin with "up" for frames to the broker, "out" for
// packets to the client, and "end".
type script struct {
	c      conn.Conn
	v      packet.Version
	limits tenancy.Limits
	set    *tenancy.SettingsOverride
	grant  *tenancy.Grant
	out    strings.Builder
}

// args are the key=value words of a line; a bare word is in pos.
type args struct {
	kv  map[string]string
	pos []string
}

func parse(line string) (cmd string, a args) {
	words := strings.Fields(line)
	a.kv = map[string]string{}
	for _, w := range words[1:] {
		if k, v, ok := strings.Cut(w, "="); ok {
			a.kv[k] = v
		} else {
			a.pos = append(a.pos, w)
		}
	}
	return words[0], a
}

func (a args) has(word string) bool {
	_, ok := a.kv[word]
	return ok || slices.Contains(a.pos, word)
}

func (a args) int(key string) int {
	n, err := strconv.ParseInt(a.kv[key], 0, 64)
	if err != nil && a.kv[key] != "" {
		panic(err)
	}
	return int(n)
}

func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		var s *script
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd == "new" {
				s = &script{limits: tenancy.NoLimits(), grant: tenancy.DefaultGrant(), v: packet.V5}
			}
			s.out.Reset()
			for line := range strings.Lines(d.Input) {
				if line = strings.TrimSpace(line); line != "" {
					s.line(line)
				}
			}
			if s.out.Len() == 0 {
				return "ok\n"
			}
			return s.out.String()
		})
	})
}

func (s *script) line(line string) {
	cmd, a := parse(line)
	switch cmd {
	case "limits":
		for k, v := range a.kv {
			n, _ := strconv.ParseInt(v, 10, 64)
			var err error
			if s.limits, err = s.limits.With(k, n); err != nil {
				panic(err)
			}
		}
	case "settings":
		s.set = &tenancy.SettingsOverride{}
		if err := json.Unmarshal([]byte(strings.TrimPrefix(line, cmd)), s.set); err != nil {
			panic(err)
		}
		if err := s.set.Valid(); err != nil {
			panic(err)
		}
	case "change":
		l, cl := s.c.Change(conn.NewRules(s.tenant(), nil))
		if l != nil {
			fmt.Fprintf(&s.out, "up LIMITS expiry=%d queue=%d subscriptions=%d receive=%d %+v\n", l.SessionExpiry, l.Limits.QueueMessages, l.Limits.Subscriptions, l.Limits.ReceiveMaximum, l.Limits.Settings)
		}
		s.end(cl)
	case "authenticating":
		p := s.packet(a.pos[0], a)
		x, cl, r := s.c.Authenticating(p)
		if x.Came {
			fmt.Fprintf(&s.out, "auth again=%v %s\n", x.Again, x.Data)
		}
		s.end(cl)
		if r.Reason.Failed() {
			s.packets(s.c.Goodbye(nil, conn.Close{Ended: true, Reason: r.Reason, Text: r.Text}))
		}
	case "authenticated":
		s.c.Authenticated([]byte(a.kv["data"]))
	case "challenge":
		s.packets(s.c.Challenge(nil, mqtt.ReasonCode(a.int("reason")), []byte(a.kv["data"])))
	case "grant":
		var err error
		if s.grant, err = tenancy.NewGrant(7, strings.Split(a.kv["publish"], ","), strings.Split(a.kv["subscribe"], ",")); err != nil {
			panic(err)
		}
	case "connect":
		s.connect(a)
	case "raw":
		b, err := hex.DecodeString(strings.Join(a.pos, ""))
		if err != nil {
			panic(err)
		}
		s.in(b)
	case "credit":
		total, ok := s.c.Credit(a.int("backlog"))
		fmt.Fprintf(&s.out, "credit %d %v\n", total, ok)
	case "keepalive":
		fmt.Fprintf(&s.out, "keepalive %v\n", s.c.KeepAlive())
	case "mayread":
		fmt.Fprintf(&s.out, "mayread PUBLISH=%v PUBREL=%v SUBSCRIBE=%v PINGREQ=%v\n", s.c.MayRead(packet.PUBLISH), s.c.MayRead(packet.PUBREL), s.c.MayRead(packet.SUBSCRIBE), s.c.MayRead(packet.PINGREQ))
	case "goodbye":
		s.packets(s.c.Goodbye(nil, conn.Close{Ended: true, Reason: mqtt.ReasonCode(a.int("reason")), Text: a.kv["text"]}))
	default:
		if p := s.packet(cmd, a); p != nil {
			s.in(packet.Append(nil, s.v, p, 0))
			return
		}
		s.down(cmd, a)
	}
}

func (s *script) connect(a args) {
	s.v = packet.Version(a.int("v"))
	p := &packet.Connect{
		Version: s.v, Bridge: a.has("bridge"), CleanStart: a.has("clean"), ClientID: a.kv["id"], KeepAlive: uint16(a.int("keepalive")),
		SessionExpiry: uint32(a.int("expiry")), HasSessionExpiry: a.has("expiry"), ReceiveMaximum: uint16(a.int("receive")),
		MaximumPacketSize: uint32(a.int("max")), TopicAliasMaximum: uint16(a.int("alias")), NoProblem: a.has("noproblem"),
		HasAuthMethod: a.has("auth"), AuthMethod: a.kv["auth"], RequestResponse: a.has("response"),
	}
	if a.has("will") {
		p.Will = &mqtt.Will{Message: mqtt.Message{Topic: []byte(a.kv["will"]), Payload: []byte(a.kv["payload"]), QoS: mqtt.QoS(a.int("qos")), Retain: a.has("retain")}, Delay: uint32(a.int("delay"))}
	}
	var dec packet.Decoder
	var q packet.Packet
	if _, err := dec.Decode(packet.AppendConnect(nil, p), 0, 0, &q); err != nil {
		var e *packet.Error
		errors.As(err, &e)
		s.c.ConnectFailed(q.Connect.Version)
		s.packets(s.c.Goodbye(nil, conn.Close{Ended: true, Reason: e.Reason, Text: e.Text}))
		return
	}
	r := s.c.Connect(q.Connect)
	var o *link.Open
	if !r.Reason.Failed() {
		id := &tenancy.Identity{Tenant: s.tenant(), Username: "u", Grant: s.grant}
		o, r = s.c.Accept(q.Connect, conn.Admission{Identity: id, AssignedClientID: "auto-1"})
	}
	if r.Reason.Failed() {
		s.packets(s.c.Goodbye(nil, r.Close()))
		return
	}
	fmt.Fprintf(&s.out, "up OPEN tenant=%s id=%s clean=%v expiry=%d receive=%d/%d credit=%d protocol=%s", o.Tenant, o.ClientID, o.CleanStart,
		o.SessionExpiry, o.ReceiveMaximum, o.Limits.ReceiveMaximum, o.Credit, o.Labels.Protocol)
	if o.Will != nil {
		fmt.Fprintf(&s.out, " will=%s delay=%d", o.Will.Message.Topic, o.Will.Delay)
	}
	if o.Limits.Settings != (link.Settings{}) {
		fmt.Fprintf(&s.out, " %+v", o.Limits.Settings)
	}
	s.out.WriteString("\n")
}

func (s *script) tenant() *tenancy.Tenant {
	return &tenancy.Tenant{ID: "acme", Limits: s.limits, Settings: s.set}
}

// packet builds a packet of the client; nil if the command is none.
func (s *script) packet(cmd string, a args) *packet.Packet {
	p := &packet.Packet{}
	id := uint16(a.int("id"))
	switch cmd {
	case "publish":
		p.Type = packet.PUBLISH
		p.Publish = packet.Publish{
			PacketID: id, Dup: a.has("dup"), TopicAlias: uint16(a.int("alias")), HasTopicAlias: a.has("alias"),
			Message: mqtt.Message{Topic: []byte(a.kv["topic"]), Payload: []byte(a.kv["payload"]), QoS: mqtt.QoS(a.int("qos")), Retain: a.has("retain")},
		}
		if a.has("subid") {
			p.Publish.SubscriptionIDs = []uint32{uint32(a.int("subid"))}
		}
	case "puback", "pubrec", "pubrel", "pubcomp":
		p.Type = map[string]packet.Type{"puback": packet.PUBACK, "pubrec": packet.PUBREC, "pubrel": packet.PUBREL, "pubcomp": packet.PUBCOMP}[cmd]
		p.Ack = packet.Ack{PacketID: id, Reason: mqtt.ReasonCode(a.int("reason"))}
	case "subscribe":
		p.Type, p.Subscribe = packet.SUBSCRIBE, &packet.Subscribe{PacketID: id}
		for _, f := range a.pos {
			f, qos, _ := strings.Cut(f, ":")
			n, _ := strconv.Atoi(qos)
			p.Subscribe.Subscriptions = append(p.Subscribe.Subscriptions, mqtt.Subscription{Filter: f, QoS: mqtt.QoS(n), ID: uint32(a.int("subid"))})
		}
	case "unsubscribe":
		p.Type, p.Unsubscribe = packet.UNSUBSCRIBE, &packet.Unsubscribe{PacketID: id, Filters: a.pos}
	case "ping":
		p.Type = packet.PINGREQ
	case "disconnect":
		p.Type, p.Disconnect = packet.DISCONNECT, &packet.Disconnect{
			Reason: mqtt.ReasonCode(a.int("reason")), SessionExpiry: uint32(a.int("expiry")), HasSessionExpiry: a.has("expiry"),
		}
	case "auth":
		p.Type, p.Auth = packet.AUTH, &packet.Auth{
			Reason: mqtt.ReasonCode(a.int("reason")), Method: a.kv["method"], HasMethod: a.has("method"), Data: []byte(a.kv["data"]),
		}
		if !a.has("reason") {
			p.Auth.Reason = mqtt.ReAuthenticate
		}
	case "pingresp":
		p.Type = packet.PINGRESP
	default:
		return nil
	}
	return p
}

// in handles bytes of the client.
func (s *script) in(b []byte) {
	var dec packet.Decoder
	var p packet.Packet
	fx := conn.Effects{Channel: 1}
	if n, err := dec.Decode(b, s.v, s.c.PacketMax(packet.Type(b[0]>>4)), &p); err != nil {
		var e *packet.Error
		errors.As(err, &e)
		s.c.Malformed(&p, e, &fx)
	} else if n != len(b) {
		panic("not one packet")
	} else {
		s.c.Handle(&p, &fx)
	}
	s.packets(s.c.Apply(nil, &fx))
	if fx.Auth.Came {
		fmt.Fprintf(&s.out, "auth again=%v %s\n", fx.Auth.Again, fx.Auth.Data)
	}
	for i := range fx.Up.Frames {
		f := &fx.Up.Frames[i]
		switch f.Kind {
		case link.UpPublish:
			fmt.Fprintf(&s.out, "up PUBLISH %s id=%d qos=%d dup=%v retain=%v %s\n", f.Message.Topic, f.PacketID, f.Message.QoS, f.Dup, f.Message.Retain, f.Message.Payload)
		case link.UpAck:
			fmt.Fprintf(&s.out, "up %s id=%d reason=0x%02X\n", f.Ack, f.PacketID, uint8(f.Reason))
		case link.UpSubscribe:
			fmt.Fprintf(&s.out, "up SUBSCRIBE id=%d", f.PacketID)
			for _, x := range f.Subscribe {
				fmt.Fprintf(&s.out, " %s:%d nolocal=%v rap=%v", x.Filter, x.QoS, x.NoLocal, x.RetainAsPublished)
			}
			s.out.WriteString("\n")
		case link.UpUnsubscribe:
			fmt.Fprintf(&s.out, "up UNSUBSCRIBE id=%d %v\n", f.PacketID, f.Unsubscribe)
		default:
			fmt.Fprintf(&s.out, "up %d\n", f.Kind)
		}
	}
	for why, n := range fx.Drops {
		if n > 0 {
			fmt.Fprintf(&s.out, "dropped %s %d\n", conn.Drop(why), n)
		}
	}
	s.end(fx.Close)
}

func (s *script) end(cl conn.Close) {
	if !cl.Ended {
		return
	}
	fmt.Fprintf(&s.out, "end cause=%d reason=0x%02X by_client=%v", cl.Cause, uint8(cl.Reason), cl.ByClient)
	if cl.HasSessionExpiry {
		fmt.Fprintf(&s.out, " expiry=%d", cl.SessionExpiry)
	}
	s.out.WriteString("\n")
	s.packets(s.c.Goodbye(nil, cl))
}

// down takes a frame of the broker.
func (s *script) down(cmd string, a args) {
	b := &link.Down{Messages: []mqtt.Message{{Topic: []byte(a.kv["topic"]), Payload: []byte(a.kv["payload"])}}}
	f := link.DownFrame{PacketID: uint16(a.int("id")), Reason: mqtt.ReasonCode(a.int("reason")), Text: a.kv["text"]}
	for _, r := range a.pos {
		if n, err := strconv.ParseUint(r, 0, 8); err == nil {
			f.Reasons = append(f.Reasons, mqtt.ReasonCode(n))
		}
	}
	switch cmd {
	case "opened":
		f.Kind, f.Bytes, f.SessionPresent = link.DownOpened, uint64(a.int("window")), a.has("present")
	case "refused":
		f.Kind = link.DownRefused
	case "close":
		f.Kind = link.DownClose
	case "deliver":
		f.Kind, f.QoS, f.Dup, f.Retain = link.DownDeliver, mqtt.QoS(a.int("qos")), a.has("dup"), a.has("retain")
		if n := a.int("size"); n > 0 {
			b.Messages[0].Payload = make([]byte, n)
		}
	case "window":
		f.Kind, f.Bytes = link.DownWindow, uint64(a.int("bytes"))
	case "suback":
		f.Kind = link.DownSuback
	case "unsuback":
		f.Kind = link.DownUnsuback
	case "acked":
		f.Kind = link.DownAck
		f.Ack = map[string]mqtt.AckKind{"puback": mqtt.Puback, "pubrec": mqtt.Pubrec, "pubrel": mqtt.Pubrel, "pubcomp": mqtt.Pubcomp}[a.pos[0]]
	default:
		panic("no such command: " + cmd)
	}
	out, r := s.c.Receive(nil, b, &f)
	out = append(out, r.Payload...)
	s.packets(out)
	if r.TooLarge {
		s.out.WriteString("too large\n")
	}
	s.end(r.Close)
}

// packets shows what goes to the client.
func (s *script) packets(b []byte) {
	var dec packet.Decoder
	for len(b) > 0 {
		var p packet.Packet
		n, err := dec.Decode(b, max(s.v, packet.V31), 0, &p)
		if err != nil || n == 0 {
			panic(fmt.Sprintf("% X: %v", b, err))
		}
		fmt.Fprintf(&s.out, "out %s", p.Type)
		switch p.Type {
		case packet.CONNACK:
			k := p.Connack
			fmt.Fprintf(&s.out, " 0x%02X present=%v", uint8(k.Reason), k.SessionPresent)
			show(&s.out, "id", k.AssignedClientID != "", k.AssignedClientID)
			show(&s.out, "expiry", k.HasSessionExpiry, k.SessionExpiry)
			show(&s.out, "receive", k.ReceiveMaximum > 0, k.ReceiveMaximum)
			show(&s.out, "max", k.MaximumPacketSize > 0, k.MaximumPacketSize)
			show(&s.out, "alias", k.TopicAliasMaximum > 0, k.TopicAliasMaximum)
			show(&s.out, "keepalive", k.HasServerKeepAlive, k.ServerKeepAlive)
			show(&s.out, "qos", k.HasMaximumQoS, k.MaximumQoS)
			show(&s.out, "retain", k.RetainUnavailable, 0)
			show(&s.out, "wildcard", k.WildcardUnavailable, 0)
			show(&s.out, "ids", k.SubscriptionIDsUnavailable, 0)
			show(&s.out, "shared", k.SharedUnavailable, 0)
			show(&s.out, "response", k.ResponseInformation != "", k.ResponseInformation)
			show(&s.out, "reference", k.ServerReference != "", k.ServerReference)
			show(&s.out, "auth", k.AuthMethod != "", k.AuthMethod+":"+string(k.AuthData))
			show(&s.out, "text", k.ReasonString != "", k.ReasonString)
			show(&s.out, "props", len(k.UserProperties) > 0, property(k.UserProperties))
		case packet.PUBLISH:
			q := &p.Publish
			fmt.Fprintf(&s.out, " topic=%s id=%d qos=%d dup=%v retain=%v", q.Message.Topic, q.PacketID, q.Message.QoS, q.Dup, q.Message.Retain)
			show(&s.out, "alias", q.HasTopicAlias, q.TopicAlias)
			show(&s.out, "bytes", len(q.Message.Payload) > 0, len(q.Message.Payload))
		case packet.PUBACK, packet.PUBREC, packet.PUBREL, packet.PUBCOMP:
			fmt.Fprintf(&s.out, " id=%d 0x%02X", p.Ack.PacketID, uint8(p.Ack.Reason))
			show(&s.out, "text", len(p.Ack.ReasonString) > 0, string(p.Ack.ReasonString))
			show(&s.out, "props", len(p.Ack.UserProperties) > 0, property(p.Ack.UserProperties))
		case packet.SUBACK, packet.UNSUBACK:
			fmt.Fprintf(&s.out, " id=%d", p.Suback.PacketID)
			for _, c := range p.Suback.Reasons {
				fmt.Fprintf(&s.out, " 0x%02X", uint8(c))
			}
			show(&s.out, "text", p.Suback.ReasonString != "", p.Suback.ReasonString)
			show(&s.out, "props", len(p.Suback.UserProperties) > 0, property(p.Suback.UserProperties))
		case packet.DISCONNECT:
			fmt.Fprintf(&s.out, " 0x%02X", uint8(p.Disconnect.Reason))
			show(&s.out, "text", p.Disconnect.ReasonString != "", p.Disconnect.ReasonString)
			show(&s.out, "reference", p.Disconnect.ServerReference != "", p.Disconnect.ServerReference)
			show(&s.out, "props", len(p.Disconnect.UserProperties) > 0, property(p.Disconnect.UserProperties))
		case packet.AUTH:
			fmt.Fprintf(&s.out, " 0x%02X method=%s data=%s", uint8(p.Auth.Reason), p.Auth.Method, p.Auth.Data)
		default:
		}
		s.out.WriteString("\n")
		b = b[n:]
	}
}

// property shows a User Property: its identifier, and a key and a value with
// their lengths.
func property(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	n := int(b[2])
	return string(b[3:3+n]) + ":" + string(b[5+n:])
}

func show(w *strings.Builder, name string, ok bool, v any) {
	if ok {
		fmt.Fprintf(w, " %s=%v", name, v)
	}
}
