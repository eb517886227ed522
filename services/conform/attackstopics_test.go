// SPDX-License-Identifier: Apache-2.0

package conform

import (
	"encoding/binary"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/infra/mqtt"
)

// byShare: the name of a group of the victim, and names that try to be it.
func (s *siege) byShare(t *testing.T) {
	worker := s.open(t, s.victim, "worker", "$share/g/line/#")
	filters := []string{"$share/g/#", "$share/g/line/#", "$share/victim:g/#", "$share/victim%2Fg/line/#", "$share/victim/g/line/#"}
	thief := s.open(t, s.attacker, "thief", filters...)
	s.exchange(t, thief)
	for k := range 20 {
		s.victim.watcher.say(t, "line/work", fmt.Sprint(jewel, "-work", k), false)
	}
	for k := range 20 { // all of them, as the only member of its group
		worker.until(t, fmt.Sprint("line/work ", jewel, "-work", k))
	}
	s.exchange(t, thief)
	for _, m := range worker.heard() {
		if strings.Contains(m, loot) {
			t.Errorf("the victim's worker heard %q", m)
		}
	}
}

// byRetained: the victim's retained messages are asked for, and cleared.
func (s *siege) byRetained(t *testing.T) {
	s.victim.watcher.say(t, "kept/1", jewel+"-kept", true)
	filters := []string{"#", "kept/#", "+/+", "victim/#", "victim/kept/1", "/victim/kept/#", "../victim/kept/1"}
	s.attacker.watcher.say(t, "kept/1", "", true)
	asks := s.open(t, s.attacker, "asks", filters...)
	s.exchange(t, asks)
	s.victim.watcher.say(t, "kept/2", jewel, true)
	s.victim.watcher.say(t, "kept/2", "", true)
	late := s.open(t, s.victim, "late", "kept/#")
	late.until(t, "kept/1 "+jewel+"-kept")
	late.Disconnect()
	answer := s.ask(t, s.attacker, http.MethodGet, "/v1/tenants/attacker/retained", nil)
	answer.want(t, http.StatusOK)
	answer.clean(t)
	s.victim.watcher.say(t, "kept/1", "", true)
}

// byWill: wills to topics that try to be the victim's, or the server's.
func (s *siege) byWill(t *testing.T) {
	for k, topic := range []string{"line/1", "victim/line", "../victim/line", "/victim/line", "victim:line"} {
		dying := s.open(t, s.attacker, "dying")
		dying.Disconnect()
		payload := fmt.Sprint(loot, "-will-", k)
		dying.Options.Will = &mqtt.Will{Message: mqtt.Message{Topic: []byte(topic), Payload: []byte(payload), QoS: 1, Retain: k == 0}}
		if _, err := dying.Connect(); err != nil {
			t.Fatal(err)
		}
		dying.Kill()
		s.attacker.watcher.until(t, topic+" "+payload)
		s.exchange(t)
	}
	late := s.open(t, s.victim, "late", "line/#")
	s.victim.watcher.say(t, "marker", "late", false)
	late.until(t, "marker late")
	for _, m := range late.heard() {
		if strings.Contains(m, loot) {
			t.Errorf("the victim has %q retained", m)
		}
	}
	s.attacker.watcher.say(t, "line/1", "", true)
	for _, topic := range []string{"$SYS/tenant/connections", "$share/g/line"} {
		o := s.attacker.options("dying")
		o.Will = &mqtt.Will{Message: mqtt.Message{Topic: []byte(topic), Payload: []byte(loot), QoS: 1}}
		got, err := greet(s.dial(t, s.attacker.gateway.Addr("mqtt"), nil), o)
		denied(t, "a will to "+topic, got, err, mqtt.NotAuthorized, mqtt.TopicNameInvalid)
	}
}

// bySys: what the server says of the victim, and saying it in its place.
func (s *siege) bySys(t *testing.T) {
	for _, topic := range []string{"$SYS/tenant/connections", "$SYS/x", "$SYS"} {
		if r := s.attacker.watcher.publish(t, mqtt.Message{Topic: []byte(topic), Payload: []byte(loot)}); !r.Failed() {
			t.Errorf("publish to %s: %v, expected a refusal", topic, r)
		}
	}
	spy := s.open(t, s.attacker, "spy", "$SYS/#", "$SYS/+/#", "$SYS/tenant/#", "$SYS/victim/#", "$SYS/+/mqtt/#", "$share/spies/$SYS/#")
	// The attacker has these two clients, the victim one: once that is known, each hears
	// its own number, and never the other's.
	const connections = "$SYS/tenant/connections "
	tell := func(p *party) (told []string) {
		for _, m := range p.heard() {
			if n, ok := strings.CutPrefix(m, connections); ok {
				told = append(told, n)
			}
		}
		return told
	}
	s.attacker.watcher.until(t, connections+"2")
	s.victim.watcher.until(t, connections+"1")
	from := map[*party]int{spy: len(tell(spy)), s.attacker.watcher: len(tell(s.attacker.watcher)), s.victim.watcher: len(tell(s.victim.watcher))}
	for p, n := range from {
		for end := time.Now().Add(10 * time.Second); len(tell(p)) < n+2; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s hears nothing below $SYS any more", p.Options.ClientID)
			}
		}
	}
	s.exchange(t, spy)
	for p, n := range from {
		want := map[bool]string{true: "1", false: "2"}[p == s.victim.watcher]
		if told := tell(p)[n:]; slices.ContainsFunc(told, func(n string) bool { return n != want }) {
			t.Errorf("%s of %s heard of %q connections, its tenant has %s", p.Options.ClientID, p.Options.Username, told, want)
		}
	}
	for _, m := range spy.heard() {
		if strings.HasPrefix(m, "$") && (!strings.HasPrefix(m, "$SYS/tenant/") || strings.Contains(m, "victim")) {
			t.Errorf("the spy heard %q, which is not about its own tenant", m)
		}
	}
}

// byResponseTopic: requests whose answer would go to the victim, and answers to its
// requests.
func (s *siege) byResponseTopic(t *testing.T) {
	const response, correlation = 8, 9
	field := func(id byte, text string) []byte {
		return append(binary.BigEndian.AppendUint16([]byte{id}, uint16(len(text))), text...)
	}
	responder := s.open(t, s.victim, "responder", "requests/#")
	own := s.open(t, s.attacker, "responder", "requests/#", "answers/#")
	ask := func(b *besieged, payload, to string) {
		properties := append(field(response, to), field(correlation, jewel)...)
		if b == s.attacker {
			properties = field(response, to)
		}
		if r := b.watcher.publish(t, mqtt.Message{Topic: []byte("requests/1"), Payload: []byte(payload), Properties: properties}); r.Failed() {
			t.Fatal(r)
		}
	}
	for k, to := range []string{"answers/1", "victim/answers/1", "../victim/answers/1"} {
		ask(s.victim, fmt.Sprint(jewel, "-request", k), to)
		responder.until(t, fmt.Sprint("requests/1 ", jewel, "-request", k))
		ask(s.attacker, fmt.Sprint(loot, "-request", k), to)
		own.until(t, fmt.Sprint("requests/1 ", loot, "-request", k))
		// Each answers where it was asked to.
		own.say(t, to, fmt.Sprint(loot, "-answer", k), false)
		responder.say(t, to, fmt.Sprint(jewel, "-answer", k), false)
		s.victim.watcher.until(t, fmt.Sprint(to, " ", jewel, "-answer", k))
		s.attacker.watcher.until(t, fmt.Sprint(to, " ", loot, "-answer", k))
	}
	s.exchange(t, own)
	for _, m := range responder.heard() {
		if strings.Contains(m, loot) {
			t.Errorf("the victim's responder heard %q", m)
		}
	}
	o := s.attacker.options("asks")
	o.RequestResponse = true
	d := &Device{Address: s.attacker.gateway.Addr("mqtt"), Options: o}
	ack, err := d.Connect()
	if err != nil {
		t.Fatal(err)
	}
	d.Kill()
	if strings.Contains(ack.ResponseInformation, "victim") {
		t.Errorf("response information %q", ack.ResponseInformation)
	}
}
