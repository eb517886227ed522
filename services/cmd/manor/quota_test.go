// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
)

// event is what the history of clients says.
type event struct {
	Kind     string
	Client   string `json:"client_id"`
	Username string
	Reason   string
	Why      string
	Count    int
}

// told waits until the history has events of that kind and reason, and returns them.
func (x *tenant) told(kind, reason string) (found []event) {
	x.Helper()
	for end := time.Now().Add(soon); found == nil; time.Sleep(20 * time.Millisecond) {
		if found = x.events(kind, reason); found == nil && time.Now().After(end) {
			x.Fatalf("no event %s %s", kind, reason)
		}
	}
	if e := found[0]; e.Why == "" || e.Client == "" {
		x.Errorf("event %+v", e)
	}
	return found
}

// events returns the events of that kind and reason.
func (x *tenant) events(kind, reason string) (found []event) {
	x.Helper()
	var page struct{ Items []event }
	x.do("GET", "/v1/tenants/"+x.id+"/events?limit=1000&kind="+kind, "", &page)
	for _, e := range page.Items {
		if e.Reason == reason {
			found = append(found, e)
		}
	}
	return found
}

// subscribeAll returns the whole SUBACK.
func (d *device) subscribeAll(filters ...string) *packet.Suback {
	d.x.Helper()
	s := &packet.Subscribe{PacketID: d.id()}
	for _, f := range filters {
		s.Subscriptions = append(s.Subscriptions, mqtt.Subscription{Filter: f, QoS: 1})
	}
	d.send(&packet.Packet{Type: packet.SUBSCRIBE, Subscribe: s})
	a := d.want(packet.SUBACK).Suback
	a.Reasons, a.UserProperties = slices.Clone(a.Reasons), bytes.Clone(a.UserProperties)
	return a
}

// refused is the test of a quota by which SUBSCRIBE is refused: the filter is the one too
// many, for a live client and in each version.
func refused(x *tenant, quota, overrides, filter string, before ...string) {
	was, old := x.device(), x.device(version(packet.V311))
	for _, f := range before {
		was.subscribe(f, 0, 0)
	}
	x.quota(overrides)
	n := 0
	x.within(func() string {
		n++
		a := was.subscribeAll(strings.ReplaceAll(filter, "*", fmt.Sprint(n)))
		if a.Reasons[0] != mqtt.QuotaExceeded {
			was.send(&packet.Packet{Type: packet.UNSUBSCRIBE, Unsubscribe: &packet.Unsubscribe{PacketID: was.id(), Filters: []string{strings.ReplaceAll(filter, "*", fmt.Sprint(n))}}})
			was.want(packet.UNSUBACK)
			return a.Reasons[0].String()
		}
		if !strings.Contains(a.ReasonString, quota) || !bytes.Equal(a.UserProperties, packet.AppendUserProperty(nil, "limit", quota)) {
			x.Errorf("SUBACK says %q and has the properties %q", a.ReasonString, a.UserProperties)
		}
		return ""
	})
	x.within(func() string { // another broker may hear of what there is a second later
		n++
		if r := old.subscribe(strings.ReplaceAll(filter, "*", fmt.Sprint(n)), 0, 0); r != 0x80 {
			return fmt.Sprintf("3.1.1: SUBACK %v", r)
		}
		return ""
	})
	for _, e := range x.told("throttled", quota) {
		if e.Username == "" {
			x.Errorf("event %+v", e)
		}
	}
}

// connack connects until CONNACK is as ok wants it, which must be within the time that a
// change may take.
func (x *tenant) connack(ok func(k *packet.Connack) bool, changes ...change) *device {
	x.Helper()
	var d *device
	x.within(func() string {
		var k *packet.Connack
		if d, k = x.connect(changes...); !ok(k) {
			return fmt.Sprintf("CONNACK %+v", k)
		}
		return ""
	})
	return d
}

// denied is the test of a quota by which a filter is refused before the broker hears of it.
func denied(x *tenant, overrides string, reason mqtt.ReasonCode, filters ...string) {
	was := x.device()
	x.quota(overrides)
	x.within(func() string {
		if a := was.subscribeAll(filters...); a.Reasons[0] != reason {
			return a.Reasons[0].String()
		}
		return ""
	})
	if r := was.subscribe("fine", 0, 0); r.Failed() {
		x.Errorf("SUBACK %v", r)
	}
}

// retainedFull is the test of a quota by which the second retained message is one too many.
func retainedFull(x *tenant, overrides string) {
	pub, old := x.device(), x.device(version(packet.V311))
	x.quota(overrides)
	n := 0
	x.within(func() string {
		n++
		pub.publish(fmt.Sprint("r/", n), "x", 1, true)
		if a := pub.want(packet.PUBACK).Ack; a.Reason != mqtt.QuotaExceeded || !bytes.Equal(a.UserProperties, packet.AppendUserProperty(nil, "limit", "retained_messages")) {
			return a.Reason.String()
		}
		return ""
	})
	old.publish("r/old", "x", 1, true)
	old.wantEnd()
	pub.publish("r/none", "x", 0, true)
	x.told("dropped", "retained_quota")
}

// quotaRows has a test for each quota of the data plane that no other table has: that it
// is enforced, that a change reaches live sessions within 2 s, and what is told.
var quotaRows = map[string]func(x *tenant){
	"topic_length":          func(x *tenant) { denied(x, `{"topic_length":5}`, mqtt.TopicFilterInvalid, "longer") },
	"topic_level_length":    func(x *tenant) { denied(x, `{"topic_level_length":5}`, mqtt.TopicFilterInvalid, "longer") },
	"wildcard_root":         func(x *tenant) { denied(x, `{"wildcard_root":0}`, mqtt.TopicFilterInvalid, "#") },
	"subscriptions_request": func(x *tenant) { denied(x, `{"subscriptions_request":1}`, mqtt.QuotaExceeded, "a", "b") },
	"topic_alias_maximum": func(x *tenant) {
		x.quota(`{"topic_alias_maximum":1}`)
		d := x.connack(func(k *packet.Connack) bool { return k.TopicAliasMaximum == 1 })
		d.send(&packet.Packet{Type: packet.PUBLISH, Publish: packet.Publish{Message: mqtt.Message{Topic: []byte("t")}, TopicAlias: 2, HasTopicAlias: true}})
		d.wantDisconnect(mqtt.TopicAliasInvalid)
	},
	"receive_maximum": func(x *tenant) {
		x.quota(`{"receive_maximum":1}`)
		d := x.connack(func(k *packet.Connack) bool { return k.ReceiveMaximum == 1 })
		d.publish("t", "x", 2, false)
		d.want(packet.PUBREC)
		d.publish("t", "y", 2, false)
		d.wantDisconnect(mqtt.ReceiveMaximumExceeded)
	},
	"keep_alive_minimum": func(x *tenant) {
		x.quota(`{"keep_alive_minimum":100}`)
		x.connack(func(k *packet.Connack) bool { return k.HasServerKeepAlive && k.ServerKeepAlive == 100 })
	},
	"keep_alive_maximum": func(x *tenant) {
		x.quota(`{"keep_alive_maximum":50}`)
		x.connack(func(k *packet.Connack) bool { return k.HasServerKeepAlive && k.ServerKeepAlive == 50 })
		x.connack(func(k *packet.Connack) bool { return k.HasServerKeepAlive && k.ServerKeepAlive == 50 }, func(p *packet.Connect) { p.KeepAlive = 0 })
	},
	"will_size": func(x *tenant) {
		x.quota(`{"will_size":3}`)
		x.connack(func(k *packet.Connack) bool {
			return k.Reason == mqtt.QuotaExceeded && bytes.Equal(k.UserProperties, packet.AppendUserProperty(nil, "limit", "will_size"))
		}, willOn("w"))
	},
	"persistent_sessions": func(x *tenant) {
		x.device(stored)
		x.quota(`{"persistent_sessions":1}`)
		x.connack(func(k *packet.Connack) bool {
			return k.Reason == mqtt.QuotaExceeded && strings.Contains(k.ReasonString, "persistent_sessions")
		}, stored)
		x.device()
		x.told("throttled", mqtt.QuotaExceeded.String())
	},
	"queue_bytes": func(x *tenant) {
		pub, was := x.device(), x.device(stored, clientID("sub"), window(1))
		was.subscribe("t", 1, 0)
		x.quota(`{"queue_bytes":300}`)
		x.within(func() string {
			pub.publishAll("t", "0", strings.Repeat("x", 500), "2")
			if got := was.drain(); !slices.Equal(got, []string{"0", "2"}) {
				return fmt.Sprint(got)
			}
			return ""
		})
		if e := x.told("dropped", "queue_full")[0]; e.Client != "sub" {
			x.Errorf("event %+v", e)
		}
	},
	"retained_messages": func(x *tenant) { retainedFull(x, `{"retained_messages":1}`) },
	"retained_bytes":    func(x *tenant) { retainedFull(x, `{"retained_bytes":10}`) },
	"subscriptions": func(x *tenant) {
		refused(x, "subscriptions", `{"subscriptions":2}`, "new/*", "a", "b")
	},
	"shared_groups": func(x *tenant) {
		refused(x, "shared_groups", `{"shared_groups":1}`, "$share/g*/a", "$share/g/a")
	},
	"shared_group_members": func(x *tenant) {
		x.device().subscribe("$share/g/a", 0, 0)
		refused(x, "shared_group_members", `{"shared_group_members":1}`, "$share/g/a")
	},
	"fan_out": func(x *tenant) {
		all := []*device{x.device(), x.device(), x.device()}
		for _, d := range all {
			d.subscribe("t", 0, 0)
		}
		pub := x.device(clientID("pub"))
		x.quota(`{"fan_out":2,"api_rate":-1}`)
		x.within(func() string {
			pub.publish("t", "x", 1, false)
			if a := pub.want(packet.PUBACK).Ack; a.Reason.Failed() {
				x.Fatalf("PUBACK %v", a.Reason)
			}
			n := 0
			for _, d := range all {
				n += len(d.drain())
			}
			if n != 2 {
				return fmt.Sprint(n, " have it")
			}
			return ""
		})
		if e := x.told("dropped", "fan_out")[0]; e.Client != "pub" {
			x.Errorf("event %+v", e)
		}
	},
	"storage_bytes": func(x *tenant) {
		sub := x.device(stored, clientID("sub"))
		sub.subscribe("t", 1, 0)
		_ = sub.c.Close()
		x.offline("sub")
		pub := x.device()
		for range 4 {
			pub.publishAll("t", strings.Repeat("x", 100))
		}
		x.quota(`{"storage_bytes":300}`)
		x.within(func() string {
			if _, k := x.connect(stored); k.Reason == mqtt.Success {
				return "a session is stored"
			} else if k.Reason != mqtt.QuotaExceeded || !strings.Contains(k.ReasonString, "storage_bytes") {
				x.Fatalf("CONNACK %v %q", k.Reason, k.ReasonString)
			}
			return ""
		})
		if _, k := x.connect(version(packet.V311), func(p *packet.Connect) { p.CleanStart = false }); k.Reason != mqtt.ServerUnavailable { // return code 3
			x.Errorf("3.1.1: CONNACK %v", k.Reason)
		}
		x.device()
		pub.publishAll("t", "more")
		if e := x.told("dropped", "storage_bytes")[0]; e.Client != "sub" {
			x.Errorf("event %+v", e)
		}
		var all struct {
			Items []struct {
				Name  string
				Usage int64
			}
		}
		x.do("GET", "/v1/tenants/"+x.id+"/quotas", "", &all)
		for _, q := range all.Items {
			if q.Name == "storage_bytes" && (q.Usage < 400 || q.Usage > 1000) {
				x.Errorf("%d bytes are shown", q.Usage)
			}
		}
	},
	"retained_rate": func(x *tenant) {
		pub, old := x.device(), x.device(version(packet.V311))
		x.quota(`{"retained_rate":1}`)
		x.within(func() string {
			for range 3 {
				pub.publish("r", "x", 1, true)
				a := pub.want(packet.PUBACK).Ack
				if a.Reason == mqtt.QuotaExceeded {
					if !strings.Contains(string(a.ReasonString), "retained_rate") || !bytes.Equal(a.UserProperties, packet.AppendUserProperty(nil, "limit", "retained_rate")) {
						x.Errorf("PUBACK says %q and has the properties %q", a.ReasonString, a.UserProperties)
					}
					return ""
				}
			}
			return "all are taken"
		})
		for range 3 {
			old.publish("r", "x", 1, true)
		}
		old.wantEnd()
		x.told("dropped", "retained_rate")
	},
	"retained_subscribe": func(x *tenant) {
		pub := x.device()
		for i := range 4 {
			pub.publish(fmt.Sprint("r/", i), "x", 1, true)
			pub.want(packet.PUBACK)
		}
		sub := x.device(clientID("sub"))
		x.quota(`{"retained_subscribe":2}`)
		x.within(func() string {
			sub.subscribe("r/#", 0, 0)
			n := 0
			for p := sub.next(live / 10); p != nil; p = sub.next(live / 10) {
				n++
			}
			sub.send(&packet.Packet{Type: packet.UNSUBSCRIBE, Unsubscribe: &packet.Unsubscribe{PacketID: sub.id(), Filters: []string{"r/#"}}})
			for p := sub.next(soon); p.Type != packet.UNSUBACK; p = sub.next(soon) {
			}
			if n >= 4 {
				return fmt.Sprint(n, " came at once")
			}
			return ""
		})
		all := x.device()
		got := map[string]bool{}
		all.subscribe("r/#", 1, 0)
		for len(got) < 4 {
			p := all.want(packet.PUBLISH).Publish
			got[string(p.Message.Topic)] = true
			all.ack(packet.PUBACK, p.PacketID)
		}
		x.told("throttled", "retained_subscribe")
	},
}

func TestQuotas(t *testing.T) {
	p := startProduct(t)
	n := 0
	for name, row := range quotaRows {
		n++
		id := fmt.Sprint("quota-", n)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			row(p.signUp(t, id))
		})
	}
}
