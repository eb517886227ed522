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
	"github.com/manormq/manor/tenancy"
)

// whole holds that the settings for netsplits change nothing for those whose partition
// is reached. What they do in one is tested where one can be made: TestGuest of the
// gateway and the shards, TestWideSplit, TestRegion_Netsplit.
func whole(x *tenant) {
	x.set(`{"allow_register_during_netsplit":true,"allow_publish_during_netsplit":true,"allow_subscribe_during_netsplit":true,"allow_unsubscribe_during_netsplit":true}`)
	d, k := x.connect(stored)
	if k.ReasonString != "" || k.HasSessionExpiry {
		x.Errorf("CONNACK %+v: a guest?", k)
	}
	d.subscribe("t", 1, 0)
	d.publish("t", "x", 1, false)
	d.want(packet.PUBLISH)
	d.want(packet.PUBACK)
}

// settingRows has a test for each setting, and for each quota that is one of
// VerneMQ's settings: that it is enforced, that a change reaches live sessions
// within 2 s, and what the client is told. Each has a tenant of its own.
var settingRows = map[string]func(x *tenant){
	"maximum_qos": func(x *tenant) {
		was := x.device()
		x.set(`{"maximum_qos":1}`)
		x.within(func() string { // live
			was.publish("t", "x", 2, false)
			p := was.next(soon)
			if p.Type == packet.PUBREC {
				was.ack(packet.PUBREL, p.Ack.PacketID)
				was.want(packet.PUBCOMP)
				return "QoS 2 is taken"
			}
			if p.Type != packet.DISCONNECT || p.Disconnect.Reason != mqtt.QoSNotSupported {
				x.Fatalf("got %+v", p)
			}
			return ""
		})
		is, k := x.connect()
		if !k.HasMaximumQoS || k.MaximumQoS != 1 { // told
			x.Errorf("CONNACK %+v", k)
		}
		if r := is.subscribe("t", 2, 0); r != mqtt.GrantedQoS1 {
			x.Errorf("granted %v", r)
		}
		is.publish("t", "x", 1, false)
		is.want(packet.PUBLISH)
		is.want(packet.PUBACK)
		is.publish("t", "x", 2, false)
		is.wantDisconnect(mqtt.QoSNotSupported)
		if _, k := x.connect(func(p *packet.Connect) { p.Will = &mqtt.Will{Message: mqtt.Message{Topic: []byte("w"), QoS: 2}} }); k.Reason != mqtt.QoSNotSupported {
			x.Errorf("will: CONNACK %+v", k)
		}
		old := x.device(version(packet.V311))
		old.publish("t", "x", 2, false)
		old.wantEnd()
	},
	"retain_available": func(x *tenant) {
		was := x.device()
		x.set(`{"retain_available":false}`)
		x.within(func() string {
			was.publish("t", "x", 1, true)
			p := was.next(soon)
			if p.Type == packet.PUBACK {
				return "retained"
			}
			if p.Type != packet.DISCONNECT || p.Disconnect.Reason != mqtt.RetainNotSupported {
				x.Fatalf("got %+v", p)
			}
			return ""
		})
		is, k := x.connect()
		if !k.RetainUnavailable {
			x.Errorf("CONNACK %+v", k)
		}
		is.publish("t", "x", 0, true)
		is.wantDisconnect(mqtt.RetainNotSupported)
		old := x.device(version(packet.V31))
		old.publish("t", "x", 1, true)
		old.wantEnd()
	},
	"wildcard_available": func(x *tenant) {
		notAvailable(x, `{"wildcard_available":false}`, "a/#", 0, mqtt.WildcardSubscriptionsNotSupported, func(k *packet.Connack) bool { return k.WildcardUnavailable })
	},
	"shared_available": func(x *tenant) {
		notAvailable(x, `{"shared_available":false}`, "$share/g/a", 0, mqtt.SharedSubscriptionsNotSupported, func(k *packet.Connack) bool { return k.SharedUnavailable })
	},
	"subscription_ids_available": func(x *tenant) {
		notAvailable(x, `{"subscription_ids_available":false}`, "a", 7, mqtt.SubscriptionIdentifiersNotSupported, func(k *packet.Connack) bool { return k.SubscriptionIDsUnavailable })
	},
	"response_information": func(x *tenant) {
		ask := func(p *packet.Connect) { p.RequestResponse, p.ClientID = true, "me" }
		if _, k := x.connect(ask); k.ResponseInformation != "response/me" {
			x.Errorf("CONNACK %+v", k)
		}
		x.set(`{"response_information":"answers/%u/%c"}`)
		x.within(func() string {
			if _, k := x.connect(ask); k.ResponseInformation != "answers/default/me" {
				return k.ResponseInformation
			}
			return ""
		})
		if _, k := x.connect(); k.ResponseInformation != "" { // [MQTT-3.1.2-28]
			x.Errorf("not asked for: %+v", k)
		}
	},
	"server_reference": func(x *tenant) {
		was, old := x.device(), x.device(version(packet.V311))
		x.set(`{"server_reference":"other.example:1883"}`)
		start := time.Now()
		if d := was.wantDisconnect(mqtt.UseAnotherServer); d.ServerReference != "other.example:1883" {
			x.Errorf("DISCONNECT %+v", d)
		}
		old.wantEnd()
		if d := time.Since(start); d > live {
			x.Errorf("after %v", d)
		}
		if _, k := x.connect(); k.Reason != mqtt.UseAnotherServer || k.ServerReference != "other.example:1883" {
			x.Errorf("CONNACK %+v", k)
		}
		if _, k := x.connect(version(packet.V311)); k.Reason != mqtt.ServerUnavailable { // return code 3
			x.Errorf("CONNACK %+v", k)
		}
	},
	"server_reference_permanent": func(x *tenant) {
		was := x.device()
		x.set(`{"server_reference":"other.example","server_reference_permanent":true}`)
		was.wantDisconnect(mqtt.ServerMoved)
		if _, k := x.connect(); k.Reason != mqtt.ServerMoved {
			x.Errorf("CONNACK %+v", k)
		}
	},
	"allowed_protocol_versions": func(x *tenant) {
		was, old, stays := x.device(), x.device(version(packet.V31)), x.device(version(packet.V311))
		x.set(`{"allowed_protocol_versions":["3.1.1"]}`)
		was.wantDisconnect(mqtt.AdministrativeAction)
		old.wantEnd()
		if _, k := x.connect(); k.Reason != mqtt.UnsupportedProtocolVersion {
			x.Errorf("CONNACK %+v", k)
		}
		if _, k := x.connect(version(packet.V31)); k.Reason != mqtt.UnsupportedProtocolVersion { // return code 1
			x.Errorf("CONNACK %+v", k)
		}
		stays.publishAll("t", "x")
		x.device(version(packet.V311))
	},
	"max_client_id_size": func(x *tenant) {
		long := clientID(strings.Repeat("x", 24))
		x.device(long)
		x.set(`{"max_client_id_size":23}`)
		x.within(func() string {
			if _, k := x.connect(long); k.Reason != mqtt.ClientIdentifierNotValid {
				return k.Reason.String()
			}
			return ""
		})
		if _, k := x.connect(long, version(packet.V31)); k.Reason != mqtt.ClientIdentifierNotValid { // return code 2
			x.Errorf("CONNACK %+v", k)
		}
		x.device(clientID(strings.Repeat("x", 23)))
		x.device(clientID("")) // an assigned one is longer
	},
	"max_connection_lifetime": func(x *tenant) {
		was := x.device()
		start := time.Now()
		x.set(`{"max_connection_lifetime":1}`)
		is, old := x.device(), x.device(version(packet.V311))
		was.wantDisconnect(mqtt.MaximumConnectTime)
		is.wantDisconnect(mqtt.MaximumConnectTime)
		old.wantEnd()
		if d := time.Since(start); d < time.Second/2 || d > time.Second+live {
			x.Errorf("after %v", d)
		}
	},
	"disconnect_over_rate_after": func(x *tenant) {
		x.quota(`{"publish_rate_client":5}`)
		x.set(`{"disconnect_over_rate_after":1}`)
		is, old, calm := x.device(), x.device(version(packet.V311)), x.device()
		start := time.Now()
		for range 200 { // 40 s worth
			is.publish("t", "x", 0, false)
			old.publish("t", "x", 0, false)
		}
		calm.publishAll("t", "x")
		is.wantDisconnect(mqtt.MessageRateTooHigh)
		old.wantEnd()
		if d := time.Since(start); d < time.Second || d > 3*time.Second {
			x.Errorf("after %v", d)
		}
		calm.publishAll("t", "x")
	},
	"retry_interval": func(x *tenant) {
		pub := x.device()
		was := x.device(version(packet.V311), clientID("was"))
		is5 := x.device()
		was.subscribe("t", 1, 0)
		is5.subscribe("t", 1, 0)
		x.set(`{"retry_interval":1}`)
		end := time.Now().Add(live)
		again := (*packet.Packet)(nil)
		for again == nil && time.Now().Before(end) { // messages from then on
			pub.publishAll("t", "x")
			p := was.want(packet.PUBLISH).Publish
			if again = was.next(1500 * time.Millisecond); again == nil {
				was.ack(packet.PUBACK, p.PacketID)
			}
		}
		if again == nil || again.Type != packet.PUBLISH || !again.Publish.Dup {
			x.Fatalf("got %+v", again)
		}
		is := x.device(version(packet.V31))
		is.subscribe("u", 2, 0)
		pub.publish("u", "x", 2, false)
		first := is.want(packet.PUBLISH).Publish
		if again := is.want(packet.PUBLISH).Publish; !again.Dup || again.PacketID != first.PacketID || !bytes.Equal(again.Message.Payload, first.Message.Payload) {
			x.Errorf("again: %+v", again)
		}
		is.ack(packet.PUBREC, first.PacketID)
		is.want(packet.PUBREL)
		is.want(packet.PUBREL)
		is.ack(packet.PUBCOMP, first.PacketID)
		// MQTT 5 forbids it [MQTT-4.4.0-1].
		for p := range packetsOf(is5) {
			if p.Publish.Dup {
				x.Errorf("MQTT 5: %+v", p.Publish)
			}
		}
	},
	"disconnect_on_unauthorized_publish_v3": func(x *tenant) {
		var was []*device
		for range 200 {
			was = append(was, x.device(version(packet.V31)))
		}
		x.set(`{"disconnect_on_unauthorized_publish_v3":false}`)
		x.within(func() string {
			d := was[0]
			was = was[1:]
			d.publish("$no/t", "x", 1, false)
			if p := d.next(soon); p == nil {
				return "closed"
			} else if p.Type != packet.PUBACK {
				x.Fatalf("got %+v", p)
			}
			return ""
		})
		is := x.device(version(packet.V31))
		is.publish("$no/t", "x", 2, false)
		is.ack(packet.PUBREL, is.want(packet.PUBREC).Ack.PacketID)
		is.want(packet.PUBCOMP)
		later := x.device(version(packet.V311))
		later.publish("$no/t", "x", 1, false)
		later.wantEnd()
	},
	"queue_type": func(x *tenant) {
		pub, was := x.device(), x.device(stored, window(1))
		was.subscribe("t", 1, 0)
		x.set(`{"queue_type":"lifo"}`)
		x.within(func() string {
			pub.publishAll("t", "0", "1", "2", "3")
			if got := was.drain(); !slices.Equal(got, []string{"0", "3", "2", "1"}) {
				return fmt.Sprint(got)
			}
			return ""
		})
	},
	"max_online_messages": func(x *tenant) {
		pub, was := x.device(), x.device(stored, window(1))
		was.subscribe("t", 1, 0)
		x.set(`{"max_online_messages":2}`)
		x.within(func() string {
			pub.publishAll("t", "0", "1", "2", "3")
			if got := was.drain(); !slices.Equal(got, []string{"0", "1", "2"}) {
				return fmt.Sprint(got)
			}
			return ""
		})
	},
	"override_max_online_messages": func(x *tenant) {
		pub := x.device()
		back := func() []string {
			d := x.device(stored, clientID("sub"), window(1))
			d.subscribe("t", 1, 0)
			_ = d.c.Close()
			x.offline("sub")
			pub.publishAll("t", "0", "1", "2", "3")
			return x.device(stored, clientID("sub"), window(1)).drain()
		}
		x.set(`{"max_online_messages":2}`)
		x.within(func() string {
			if got := back(); !slices.Equal(got, []string{"0", "1"}) {
				return fmt.Sprint(got)
			}
			return ""
		})
		x.set(`{"max_online_messages":2,"override_max_online_messages":true}`)
		x.within(func() string {
			if got := back(); !slices.Equal(got, []string{"0", "1", "2", "3"}) {
				return fmt.Sprint(got)
			}
			return ""
		})
	},
	"max_inflight_messages": func(x *tenant) {
		pub := x.device()
		for _, v := range []packet.Version{packet.V311, packet.V5} {
			x.set(`{}`)
			was := x.device(version(v))
			was.subscribe("t", 1, 0)
			x.set(`{"max_inflight_messages":2}`)
			x.within(func() string {
				pub.publishAll("t", "0", "1", "2", "3")
				var ids []uint16
				was.send(&packet.Packet{Type: packet.SUBSCRIBE, Subscribe: &packet.Subscribe{PacketID: was.id(), Subscriptions: []mqtt.Subscription{{Filter: "nothing"}}}})
				for {
					p := was.next(soon)
					if p.Type == packet.SUBACK {
						break
					}
					ids = append(ids, p.Publish.PacketID)
				}
				n := len(ids)
				for _, id := range ids {
					was.ack(packet.PUBACK, id)
				}
				if rest := was.drain(); n+len(rest) != 4 {
					x.Errorf("%d and %d came", n, len(rest))
				}
				if n != 2 {
					return fmt.Sprintf("%d at once", n)
				}
				return ""
			})
		}
	},
	"upgrade_outgoing_qos": func(x *tenant) {
		pub, was := x.device(), x.device(stored)
		was.subscribe("t", 1, 0)
		x.set(`{"upgrade_outgoing_qos":true}`)
		x.within(func() string {
			pub.publish("t", "x", 0, false)
			p := was.want(packet.PUBLISH).Publish
			if p.Message.QoS != 1 {
				return p.Message.QoS.String()
			}
			was.ack(packet.PUBACK, p.PacketID)
			return ""
		})
	},
	"suppress_lwt_on_session_takeover": func(x *tenant) {
		watch := x.device()
		watch.subscribe("w", 0, 0)
		sent := func() bool {
			x.device(clientID("c"), willOn("w"))
			x.device(clientID("c"))
			watch.publish("w", "end", 0, false)
			for n := 0; ; n++ {
				if p := watch.want(packet.PUBLISH).Publish; string(p.Message.Payload) == "end" {
					return n > 0
				}
			}
		}
		if !sent() {
			x.Error("no will at a takeover")
		}
		x.set(`{"suppress_lwt_on_session_takeover":true}`)
		x.within(func() string {
			if sent() {
				return "a will"
			}
			return ""
		})
	},
	"shared_subscription_policy": func(x *tenant) {
		pub := x.device()
		var members []*device
		for range 3 {
			d := x.device()
			d.subscribe("$share/g/t", 0, 0)
			members = append(members, d)
		}
		spread := func() (n int) {
			for range 20 {
				pub.publish("t", "x", 0, false)
			}
			pub.publishAll("behind", "x")
			for _, m := range members {
				if len(m.drain()) > 0 {
					n++
				}
			}
			return n
		}
		if n := spread(); n != 3 {
			x.Errorf("round robin: %d members", n)
		}
		for _, policy := range []string{"sticky_publisher", "sticky_topic"} {
			x.set(`{"shared_subscription_policy":"` + policy + `"}`)
			x.within(func() string {
				if n := spread(); n != 1 {
					return fmt.Sprintf("%s: %d members", policy, n)
				}
				return ""
			})
		}
		for _, policy := range []string{"random", "prefer_local", "local_only", "prefer_online_before_local"} {
			x.set(`{"shared_subscription_policy":"` + policy + `"}`)
			x.within(func() string {
				if n := spread(); n < 2 {
					return fmt.Sprintf("%s: %d members", policy, n)
				}
				return ""
			})
		}
	},

	"shared_member_timeout": func(x *tenant) {
		pub, stuck, old := x.device(), x.device(), x.device(version(packet.V311))
		for _, d := range []*device{stuck, old} {
			d.subscribe("$share/g/t", 1, 0)
		}
		pub.publishAll("t", "0", "1")
		is := x.device()
		is.subscribe("$share/g/t", 1, 0)
		x.set(`{"shared_member_timeout":1}`)
		for _, d := range []*device{stuck, old} {
			d.want(packet.PUBLISH) // and it is not acknowledged
		}
		stuck.wantDisconnect(mqtt.AdministrativeAction)
		old.wantEnd()
		got := []string{string(is.want(packet.PUBLISH).Publish.Message.Payload), string(is.want(packet.PUBLISH).Publish.Message.Payload)}
		if slices.Sort(got); !slices.Equal(got, []string{"0", "1"}) {
			x.Errorf("the other member got %v", got)
		}
	},
	"allow_multiple_sessions": func(x *tenant) {
		pub := x.device()
		was := x.device(stored, clientID("c"))
		was.subscribe("t", 1, 0)
		x.set(`{"allow_multiple_sessions":true}`)
		x.within(func() string { // the next CONNECT
			is, k := x.connect(stored, clientID("c"))
			if !k.SessionPresent {
				x.Errorf("CONNACK %+v", k)
			}
			if p := was.next(200 * time.Millisecond); p != nil {
				if p.Type != packet.DISCONNECT || p.Disconnect.Reason != mqtt.SessionTakenOver {
					x.Fatalf("got %+v", p)
				}
				was = is
				return "taken over"
			}
			pub.publishAll("t", "x")
			if a, b := was.drain(), is.drain(); len(a) != 1 || len(b) != 1 {
				x.Errorf("got %v and %v", a, b)
			}
			return ""
		})
		x.set(`{}`)
		x.within(func() string {
			x.device(stored, clientID("c"))
			if was.next(200*time.Millisecond) == nil {
				return "not taken over"
			}
			return ""
		})
	},
	"queue_deliver_mode": func(x *tenant) {
		pub := x.device()
		x.set(`{"allow_multiple_sessions":true,"queue_deliver_mode":"balance"}`)
		n := 0
		x.within(func() string {
			n++
			id := clientID(fmt.Sprint("shared", n))
			a := x.device(id)
			a.subscribe("t", 1, 0)
			b := x.device(id)
			pub.publishAll("t", "0", "1", "2", "3")
			if p := a.next(10 * time.Millisecond); p == nil || p.Type != packet.PUBLISH {
				return "taken over" // of which MQTT 5 is told
			}
			if la, lb := len(a.drain())+1, len(b.drain()); la+lb != 4 || la != 2 {
				return fmt.Sprintf("%d and %d", la, lb)
			}
			return ""
		})
	},

	"allow_register_during_netsplit":    whole,
	"allow_publish_during_netsplit":     whole,
	"allow_subscribe_during_netsplit":   whole,
	"allow_unsubscribe_during_netsplit": whole,

	// The quotas that are settings of VerneMQ's.
	"queue_messages": func(x *tenant) { // max_offline_messages
		pub, was := x.device(), x.device(stored, clientID("sub"), window(1))
		was.subscribe("t", 1, 0)
		x.quota(`{"queue_messages":2}`)
		x.within(func() string {
			pub.publishAll("t", "0", "1", "2", "3")
			if got := was.drain(); len(got) != 3 {
				return fmt.Sprint(got)
			}
			return ""
		})
		_ = was.c.Close()
		x.offline("sub")
		pub.publishAll("t", "0", "1", "2", "3")
		if got := x.device(stored, clientID("sub")).drain(); !slices.Equal(got, []string{"0", "1"}) {
			x.Errorf("offline: %v", got)
		}
	},
	"subscriptions_client": func(x *tenant) { // max_subscriptions_per_client
		was := x.device()
		was.subscribe("a", 0, 0)
		x.quota(`{"subscriptions_client":1}`)
		n := 0
		x.within(func() string {
			n++
			if r := was.subscribe(fmt.Sprint("b", n), 0, 0); r != mqtt.QuotaExceeded {
				return r.String()
			}
			return ""
		})
		if r := was.subscribe("a", 1, 0); r != mqtt.GrantedQoS1 {
			x.Errorf("one that is there: %v", r)
		}
	},
	"topic_levels": func(x *tenant) { // topic_max_depth
		was := x.device()
		x.quota(`{"topic_levels":2}`)
		x.within(func() string {
			was.publish("a/b/c", "x", 1, false)
			if a := was.want(packet.PUBACK).Ack; a.Reason != mqtt.TopicNameInvalid || len(a.ReasonString) == 0 {
				return a.Reason.String()
			}
			return ""
		})
		if r := was.subscribe("a/b/c", 0, 0); r != mqtt.TopicFilterInvalid {
			x.Errorf("SUBACK %v", r)
		}
		old := x.device(version(packet.V311))
		old.publish("a/b/c", "x", 1, false)
		old.wantEnd()
	},
	"packet_size": func(x *tenant) { // max_message_size
		was := x.device()
		x.quota(`{"packet_size":200}`)
		x.within(func() string {
			was.publish("t", strings.Repeat("x", 300), 1, false)
			p := was.next(soon)
			if p.Type == packet.PUBACK {
				return "taken"
			}
			if p.Type != packet.DISCONNECT || p.Disconnect.Reason != mqtt.PacketTooLarge {
				x.Fatalf("got %+v", p)
			}
			return ""
		})
		if _, k := x.connect(); k.MaximumPacketSize != 200 {
			x.Errorf("CONNACK %+v", k)
		}
	},
	"session_expiry": func(x *tenant) { // persistent_client_expiration
		was5, was3 := x.device(stored, clientID("v5")), x.device(clientID("v3"), version(packet.V311), func(p *packet.Connect) { p.CleanStart = false })
		x.quota(`{"session_expiry":1}`)
		x.within(func() string {
			for _, id := range []string{"v5", "v3"} {
				if n := x.client(id).SessionExpiry; n != 1 {
					return fmt.Sprintf("%s: %d", id, n)
				}
			}
			return ""
		})
		for _, d := range []*device{was5, was3} {
			_ = d.c.Close()
		}
		x.offline("v5", "v3")
		time.Sleep(1200 * time.Millisecond) // the expiry itself
		x.within(func() string {
			_, k5 := x.connect(stored, clientID("v5"))
			_, k3 := x.connect(clientID("v3"), version(packet.V311), func(p *packet.Connect) { p.CleanStart = false })
			if k5.SessionPresent || k3.SessionPresent {
				x.Fatal("a session has outlived its expiry")
			}
			if !k5.HasSessionExpiry || k5.SessionExpiry != 1 {
				x.Errorf("CONNACK %+v", k5)
			}
			return ""
		})
	},
	"will_delay": func(x *tenant) { // max_last_will_delay
		watch := x.device()
		watch.subscribe("w", 0, 0)
		x.quota(`{"will_delay":0}`)
		x.within(func() string { // the next CONNECT
			d := x.device(stored, func(p *packet.Connect) {
				p.Will = &mqtt.Will{Message: mqtt.Message{Topic: []byte("w"), Payload: []byte("gone")}, Delay: 60}
			})
			_ = d.c.Close()
			if watch.next(500*time.Millisecond) == nil {
				return "no will yet"
			}
			return ""
		})
	},
}

// notAvailable is the test of what a SUBSCRIBE may not have.
func notAvailable(x *tenant, settings, filter string, id uint32, reason mqtt.ReasonCode, told func(*packet.Connack) bool) {
	was := x.device()
	x.set(settings)
	x.within(func() string {
		if r := was.subscribe(filter, 0, id); r != reason {
			return r.String()
		}
		return ""
	})
	is, k := x.connect()
	if !told(k) {
		x.Errorf("CONNACK %+v", k)
	}
	is.subscribe("fine", 0, 0)
	is.send(&packet.Packet{Type: packet.SUBSCRIBE, Subscribe: &packet.Subscribe{PacketID: is.id(), Subscriptions: []mqtt.Subscription{{Filter: filter, ID: id}}}})
	is.wantDisconnect(reason)
	if id == 0 {
		if r := x.device(version(packet.V311)).subscribe(filter, 0, 0); r != mqtt.UnspecifiedError { // 0x80
			x.Errorf("3.1.1: SUBACK %v", r)
		}
	}
}

// packetsOf are the packets that have come.
func packetsOf(d *device) func(func(*packet.Packet) bool) {
	return func(yield func(*packet.Packet) bool) {
		for p := d.next(time.Millisecond); p != nil && yield(p); p = d.next(time.Millisecond) {
		}
	}
}

// clientInfo is what the API shows of a session.
type clientInfo struct {
	Connected     bool   `json:"connected"`
	SessionExpiry uint32 `json:"session_expiry"`
}

func (x *tenant) client(id string) (c clientInfo) {
	x.Helper()
	x.do("GET", "/v1/tenants/"+x.id+"/clients/"+id, "", &c)
	return c
}

// offline waits until the broker knows that clients have gone.
func (x *tenant) offline(ids ...string) {
	x.Helper()
	for _, id := range ids {
		x.within(func() string {
			if x.client(id).Connected {
				return id + " is connected"
			}
			return ""
		})
	}
}

func TestSettings(t *testing.T) {
	p := startProduct(t)
	names := map[string]bool{}
	for _, row := range (*tenancy.SettingsOverride)(nil).Table() {
		names[row.Name] = true
		if settingRows[row.Name] == nil {
			t.Errorf("the setting %s has no test", row.Name)
		}
	}
	for name := range settingRows {
		if _, quota := tenancy.NoLimits().Get(name); !quota && !names[name] {
			t.Errorf("there is no setting %s", name)
		}
	}
	n := 0
	for name, row := range settingRows {
		n++
		id := fmt.Sprint("tenant-", n)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			row(p.signUp(t, id))
		})
	}
}
