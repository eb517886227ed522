// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/manormq/manor/gateway"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/tenancy"
)

// checker answers what mqtt.check is asked.
type checker struct {
	mu      sync.Mutex
	asked   []tenancy.CheckQuestion
	answer  func(q *tenancy.CheckQuestion, item *tenancy.CheckItem) tenancy.CheckVerdict
	away    error
	waiting chan struct{} // each question waits for it, if it is not nil
}

func (k *checker) check(ctx context.Context, q *tenancy.CheckQuestion) (*tenancy.CheckAnswer, error) {
	k.mu.Lock()
	k.asked = append(k.asked, *q)
	away, waiting := k.away, k.waiting
	k.mu.Unlock()
	if waiting != nil {
		select {
		case <-waiting:
		case <-ctx.Done():
			return nil, errs.New(errs.Unavailable, "nobody answers: %w", ctx.Err())
		}
	}
	if away != nil {
		return nil, away
	}
	a := &tenancy.CheckAnswer{}
	for i := range q.Items {
		a.Verdicts = append(a.Verdicts, k.answer(q, &q.Items[i]))
	}
	return a, nil
}

// questions are the topics that were asked about.
func (k *checker) questions() (all []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, q := range k.asked {
		for _, item := range q.Items {
			all = append(all, item.Topic)
		}
	}
	return all
}

// count is how many questions there were.
func (k *checker) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.asked)
}

// checked starts a gateway whose tenant acme has a dynamic policy that grants everything
// but "never".
func checked(t *testing.T, k *checker) *world {
	t.Helper()
	return policed(t, func(tn *tenancy.Tenant, _ *tenancy.Arrival) (*tenancy.Grant, error) {
		return grantOf(t, tn.Policy.Revision, tenancy.GrantEntry{Action: tenancy.ActionAll, Filter: "#"}, tenancy.GrantEntry{Action: tenancy.ActionAll, Filter: "never", Effect: tenancy.EffectDeny}).Asking(), nil
	}, func(c *gateway.Config) { c.Check = k.check })
}

// by answers by what a topic begins with.
func by(_ *tenancy.CheckQuestion, item *tenancy.CheckItem) tenancy.CheckVerdict {
	one := mqtt.AtLeastOnce
	switch word, _, _ := strings.Cut(item.Topic, "/"); word {
	case "yes":
		return tenancy.CheckVerdict{Allow: true}
	case "kept":
		return tenancy.CheckVerdict{Allow: true, TTL: 60}
	case "no":
		return tenancy.CheckVerdict{Reason: "not today", TTL: 60}
	case "moves":
		return tenancy.CheckVerdict{Allow: true, Topic: "yes/elsewhere"}
	case "one":
		return tenancy.CheckVerdict{Allow: true, QoS: &one}
	}
	return tenancy.CheckVerdict{}
}

// acked publishes at QoS 1 and returns the answer.
func (c *client) acked(topic string, id uint16, retain bool) (mqtt.ReasonCode, string) {
	c.t.Helper()
	p := publish(topic, "x", 1)
	p.Publish.PacketID, p.Publish.Message.Retain = id, retain
	c.send(p)
	a := c.want(packet.PUBACK).Ack
	if a.PacketID != id {
		c.t.Fatalf("PUBACK of %d, want %d", a.PacketID, id)
	}
	return a.Reason, string(a.ReasonString)
}

// published are the topics that have come to the broker from a client.
func (b *fakeBroker) published(id mqtt.ClientID) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.channels {
		if c.open.ClientID == id {
			return slices.Clone(c.topics)
		}
	}
	return nil
}

// TestCheck: what mqtt.check says holds, is remembered for as long as it says, and is
// asked again under another revision, on every listener.
func TestCheck(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"mqtt", "mqtts", "ws"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := &checker{answer: by}
			w := checked(t, k)
			c := w.any(name, "acme.localhost").mustConnect(hello("c"))
			for i, x := range []struct {
				topic  string
				retain bool
				want   mqtt.ReasonCode
				text   string
				asks   bool
			}{
				{"yes/1", false, mqtt.Success, "", true},
				{"yes/1", false, mqtt.Success, "", true},
				{"kept/1", false, mqtt.Success, "", true},
				{"kept/1", false, mqtt.Success, "", false},
				{"kept/1", true, mqtt.Success, "", true},
				{"kept/2", false, mqtt.Success, "", true},
				{"no/1", false, mqtt.NotAuthorized, "not today", true},
				{"no/1", false, mqtt.NotAuthorized, "not today", false},
				{"other", false, mqtt.NotAuthorized, "the tenant's policy does not allow this (mqtt.check)", true},
				{"moves", false, mqtt.Success, "", true},
				{"never", false, mqtt.NotAuthorized, "the grant of this credential does not allow to publish to this topic", false},
			} {
				before := len(k.questions())
				reason, text := c.acked(x.topic, uint16(i+1), x.retain)
				if reason != x.want || text != x.text || (len(k.questions()) > before) != x.asks {
					t.Errorf("%d, %s: %v %q, %d questions, want %v %q, asked %v", i, x.topic, reason, text, len(k.questions())-before, x.want, x.text, x.asks)
				}
			}
			if got := w.broker.published("c"); !slices.Equal(got, []string{"yes/1", "yes/1", "kept/1", "kept/1", "kept/1", "kept/2", "yes/elsewhere"}) {
				t.Errorf("the broker has heard of %v", got)
			}
			for answer, want := range map[string]float64{"allowed": 6, "denied": 2, "unknown": 0} {
				if got := w.metric("mqtt_gateway_policy_checks_total", answer); got != want {
					t.Errorf("%s is counted %v times, want %v", answer, got, want)
				}
			}
			w.dir.edit("acme", func(t *tenancy.Tenant) { t.Policy = &tenancy.PolicyRef{Revision: 2} })
			w.dir.changes <- tenancy.Change{Kind: tenancy.TenantChanged, Tenant: "acme"}
			w.eventually("a question under the new revision", func() bool {
				c.acked("kept/1", 100, false)
				k.mu.Lock()
				defer k.mu.Unlock()
				last := k.asked[len(k.asked)-1]
				return last.Revision == 2 && last.Items[0].Topic == "kept/1"
			})
		})
	}
}

// TestCheck_Order: what a client sends behind a publish that is asked about waits for the
// answer, in its order; other clients of the tenant do not.
func TestCheck_Order(t *testing.T) {
	t.Parallel()
	k := &checker{answer: by, waiting: make(chan struct{})}
	w := checked(t, k)
	for _, name := range []string{"mqtt", "ws"} {
		id := mqtt.ClientID("c-" + name)
		c := w.any(name, "acme.localhost").mustConnect(hello(string(id)))
		var all []byte
		for i, topic := range []string{"yes/1", "no/2", "yes/3", "kept/4"} {
			p := publish(topic, "x", 1)
			p.Publish.PacketID = uint16(i + 1)
			all = packet.Append(all, packet.V5, p, 0)
		}
		all = packet.Append(all, packet.V5, &packet.Packet{Type: packet.PINGREQ}, 0)
		before := len(k.questions())
		c.write(all)
		w.eventually("the question", func() bool { return len(k.questions()) > before })
		other := hello("other-" + name)
		other.Username = "beta:dev"
		w.dial("mqtt").mustConnect(other).roundTrip()
		if got := w.broker.published(id); len(got) > 0 || len(k.questions()) != before+1 {
			t.Errorf("before the answer the broker has %v, and there were %d questions", got, len(k.questions())-before)
		}
		for range 4 {
			k.waiting <- struct{}{}
		}
		want := []mqtt.ReasonCode{mqtt.Success, mqtt.NotAuthorized, mqtt.Success, mqtt.Success}
		for i, pinged := 0, false; i < len(want) || !pinged; {
			switch p := c.next(); {
			case p != nil && p.Type == packet.PINGRESP && i >= len(want)-1: // which does not wait for the broker
				pinged = true
			case p != nil && p.Type == packet.PUBACK && p.Ack.PacketID == uint16(i+1) && p.Ack.Reason == want[i]:
				i++
			default:
				t.Fatalf("got %+v, want PUBACK %d %v", p, i+1, want[i])
			}
		}
		if got := w.broker.published(id); !slices.Equal(got, []string{"yes/1", "yes/3", "kept/4"}) {
			t.Errorf("the broker has heard of %v", got)
		}
	}
}

// TestCheck_Sees: what the question says of a message, and of who wants it.
func TestCheck_Sees(t *testing.T) {
	t.Parallel()
	k := &checker{answer: func(*tenancy.CheckQuestion, *tenancy.CheckItem) tenancy.CheckVerdict {
		return tenancy.CheckVerdict{Allow: true}
	}}
	w := checked(t, k)
	will := hello("c")
	will.Will = &mqtt.Will{Message: mqtt.Message{Topic: []byte("w"), Payload: []byte("gone"), QoS: 1}}
	c := w.dial("mqtt").mustConnect(will)
	p := publish("a/b", "payload", 2)
	p.Publish.PacketID = 7
	properties := []byte{0x01, 0x00, 0x03, 0, 4, 't', 'e', 'x', 't'}
	properties = packet.AppendUserProperty(properties, "k", "v")
	properties = append(properties, 0x09, 0, 1, 'c')
	properties = packet.AppendUserProperty(properties, "k", "")
	p.Publish.Message.Properties = properties
	c.send(p)
	c.want(packet.PUBREC)
	big := publish("a/b", "payload", 1)
	big.Publish.PacketID = 8
	big.Publish.Message.Properties = packet.AppendUserProperty(nil, "k", strings.Repeat("v", 9<<10))
	c.send(big)
	if a := c.want(packet.PUBACK).Ack; a.Reason != mqtt.NotAuthorized || !strings.Contains(string(a.ReasonString), "8 KiB") {
		t.Errorf("PUBACK %v %q", a.Reason, a.ReasonString)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.asked) != 2 {
		t.Fatalf("asked %+v", k.asked)
	}
	q := k.asked[1]
	if q.Tenant != "acme" || q.Revision != 1 || q.Class != "test" || q.Arrival.Client.ClientID != "c" || q.Arrival.Client.Username != "dev" || q.Arrival.IP != "127.0.0.1" {
		t.Errorf("asked %+v", q)
	}
	if got := fmt.Sprintf("%+v", q.Items); got != "[{Action:publish Topic:a/b QoS:exactly once Retain:false PayloadSize:7 UserProperties:[{Name:k Value:v} {Name:k Value:}] IsWill:false}]" && !strings.Contains(got, "PayloadSize:7 UserProperties:[{Name:k Value:v} {Name:k Value:}] IsWill:false") {
		t.Errorf("asked %s", got)
	}
	if i := k.asked[0].Items[0]; !i.IsWill || i.Topic != "w" || i.QoS != 1 || i.PayloadSize != 4 {
		t.Errorf("asked about the will %+v", i)
	}
}

// TestCheck_Subscribe: filters are asked about together, those that are granted; what is
// denied is refused alone, with the reason, and the QoS is at most what the policy says.
func TestCheck_Subscribe(t *testing.T) {
	t.Parallel()
	k := &checker{answer: by}
	w := checked(t, k)
	c := w.dial("mqtt").mustConnect(hello("c"))
	subscribe := func(filters ...string) *packet.Suback {
		t.Helper()
		s := &packet.Subscribe{PacketID: 9}
		for _, f := range filters {
			s.Subscriptions = append(s.Subscriptions, mqtt.Subscription{Filter: f, QoS: 2})
		}
		c.send(&packet.Packet{Type: packet.SUBSCRIBE, Subscribe: s})
		a := c.want(packet.SUBACK).Suback
		a.Reasons = slices.Clone(a.Reasons)
		return a
	}
	a := subscribe("kept/#", "no/#", "one/+", "never", "$share/g/yes")
	want := []byte{2, byte(mqtt.NotAuthorized), 1, byte(mqtt.NotAuthorized), byte(mqtt.NotAuthorized)}
	got := make([]byte, len(a.Reasons))
	for i, r := range a.Reasons {
		got[i] = byte(r)
	}
	if !bytes.Equal(got, want) || !strings.Contains(a.ReasonString, "not today") {
		t.Errorf("SUBACK %v %q", a.Reasons, a.ReasonString)
	}
	if all := k.questions(); !slices.Equal(all, []string{"kept/#", "no/#", "one/+", "$share/g/yes"}) || k.count() != 1 {
		t.Errorf("asked about %v in %d questions", all, k.count())
	}
	if got := w.metric("mqtt_gateway_subscriptions_refused_total", "check"); got != 2 {
		t.Errorf("%v subscriptions are counted as refused", got)
	}
	subscribe("kept/#", "no/#")
	if n := len(k.questions()); n != 4 {
		t.Errorf("what is remembered was asked: %d", n)
	}
	// More than one question takes.
	var many []string
	for i := range 450 {
		many = append(many, fmt.Sprint("yes/", i))
	}
	before := k.count()
	a = subscribe(many...)
	if len(a.Reasons) != 450 || slices.ContainsFunc(a.Reasons, mqtt.ReasonCode.Failed) || k.count() != before+3 {
		t.Errorf("SUBACK %v after %d questions", a.Reasons, k.count()-before)
	}
}

// TestCheck_Away: while nobody can be asked, or nobody answers in time, it is denied, and
// allowed again afterwards; a will keeps its client out.
func TestCheck_Away(t *testing.T) {
	t.Parallel()
	k := &checker{answer: by, away: errs.New(errs.Unavailable, "nobody serves it")}
	w := checked(t, k)
	c, old := w.dial("mqtt").mustConnect(hello("c")), hello("old")
	old.Version = packet.V311
	with := hello("will")
	with.Will = &mqtt.Will{Message: mqtt.Message{Topic: []byte("yes/w")}}
	if r := w.dial("mqtt").connect(with); r.Reason != mqtt.ServerUnavailable {
		t.Errorf("a will: CONNACK %v %q", r.Reason, r.ReasonString)
	}
	if r, text := c.acked("yes/1", 1, false); r != mqtt.NotAuthorized || !strings.Contains(text, "cannot be asked now") {
		t.Errorf("PUBACK %v %q", r, text)
	}
	c.send(publish("yes/0", "x", 0))
	o := w.dial("mqtt").mustConnect(old)
	o.send(publish("yes/0", "x", 0))
	o.wantEnd()
	if got := w.metric("mqtt_gateway_policy_checks_total", "unknown"); got != 4 {
		t.Errorf("unknown is counted %v times", got)
	}
	k.mu.Lock()
	k.away, k.waiting = nil, make(chan struct{})
	k.mu.Unlock()
	begin := time.Now()
	if r, _ := c.acked("yes/1", 2, false); r != mqtt.NotAuthorized || time.Since(begin) > 5*time.Second {
		t.Errorf("PUBACK %v after %v", r, time.Since(begin))
	}
	k.mu.Lock()
	k.waiting = nil
	k.mu.Unlock()
	if r, text := c.acked("yes/1", 3, false); r.Failed() {
		t.Errorf("PUBACK %v %q", r, text)
	}
	if got := w.broker.published("c"); !slices.Equal(got, []string{"yes/1"}) {
		t.Errorf("the broker has heard of %v", got)
	}
	if r := w.dial("mqtt").connect(with); r.Reason.Failed() {
		t.Errorf("a will: CONNACK %v %q", r.Reason, r.ReasonString)
	}
	denied := hello("denied")
	denied.Will = &mqtt.Will{Message: mqtt.Message{Topic: []byte("no/w")}}
	if r := w.dial("mqtt").connect(denied); r.Reason != mqtt.NotAuthorized || r.ReasonString != "the will: not today" {
		t.Errorf("a will: CONNACK %v %q", r.Reason, r.ReasonString)
	}
}
