// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/policy"
)

func dynamic(t testing.TB, rules string) (*policy.Program, error) {
	t.Helper()
	return policy.Compile(t.Context(), policy.Source{"p.rego": "package mqtt\n\ngrants := []\n\n" + rules + "\n"}, policy.Limits{Bytes: -1, Grants: -1, Time: 5 * time.Millisecond})
}

// TestCheck_Dynamic: a policy is asked only if it says so, and what cannot be is refused.
func TestCheck_Dynamic(t *testing.T) {
	for _, c := range []struct {
		rules   string
		dynamic bool
		fault   string
	}{
		{"dynamic := true\n\ncheck := {\"allow\": true}", true, ""},
		{"dynamic := false\n\ncheck := {\"allow\": true}", false, ""},
		{"other := 1", false, ""},
		{"check := {\"allow\": true}", false, "mqtt.check would never be asked: expected dynamic := true"},
		{"dynamic := true", false, "mqtt.dynamic is true, expected the rule check"},
		{"dynamic := 1\n\ncheck := {\"allow\": true}", false, "expected true or false"},
		{"dynamic := true if input.class == \"x\"\n\ncheck := {\"allow\": true}", false, "expected true or false"},
	} {
		p, err := dynamic(t, c.rules)
		if c.fault != "" {
			if err == nil || !strings.Contains(err.Error(), c.fault) {
				t.Errorf("%q: %v, want %q", c.rules, err, c.fault)
			}
		} else if err != nil || p.Dynamic != c.dynamic {
			t.Errorf("%q: %v, dynamic %v", c.rules, err, p != nil && p.Dynamic)
		}
	}
}

// TestCheck: what mqtt.check sees and says; what goes wrong denies, and says why.
func TestCheck(t *testing.T) {
	p, err := dynamic(t, `dynamic := true

check := {"allow": true, "ttl": 30} if {
	input.topic == "sees"
	input.tenant == {"id": "acme", "plan": "pro"}
	input.class == "x"
	input.client.id == "c"
	input.ip == "192.0.2.1"
	input.action == "publish"
	input.qos == 1
	input.retain
	input.payload_size == 5
	input.user_properties == [{"name": "k", "value": "v"}]
	not input.is_will
}

check := {"allow": true, "topic": "there"} if input.topic == "moves"

check := {"allow": true, "topic": "a/#"} if input.topic == "wildcard"

check := {"allow": true, "topic": "$SYS/x"} if input.topic == "system"

check := {"allow": true, "qos": 1} if input.topic == "qos"

check := {"allow": true, "qos": 3} if input.topic == "qos 3"

check := {"allow": true, "ttl": 3601} if input.topic == "for ever"

check := {"allow": true, "nonsense": 1} if input.topic == "unknown"

check := {"allow": "yes"} if input.topic == "text"

check := {"allow": to_number(input.topic)} if input.topic == "fails"

check := {"allow": false, "reason": "not you", "ttl": 5} if input.topic == "denied"`)
	if err != nil {
		t.Fatal(err)
	}
	publish, subscribe := tenancy.ActionPublish, tenancy.ActionSubscribe
	for _, c := range []struct {
		item  tenancy.CheckItem
		allow bool
		says  string // reason, why, topic
	}{
		{tenancy.CheckItem{Action: publish, Topic: "sees", QoS: 1, Retain: true, PayloadSize: 5, UserProperties: []tenancy.UserProperty{{Name: "k", Value: "v"}}}, true, ""},
		{tenancy.CheckItem{Action: publish, Topic: "sees", QoS: 1, Retain: true, PayloadSize: 5}, false, "undefined"},
		{tenancy.CheckItem{Action: publish, Topic: "moves"}, true, "there"},
		{tenancy.CheckItem{Action: subscribe, Topic: "moves"}, false, "a subscription keeps its filter"},
		{tenancy.CheckItem{Action: publish, Topic: "moves", IsWill: true}, false, "a will keeps its topic"},
		{tenancy.CheckItem{Action: publish, Topic: "wildcard"}, false, "expected topic to be a topic name"},
		{tenancy.CheckItem{Action: publish, Topic: "system"}, false, "expected topic to be a topic name"},
		{tenancy.CheckItem{Action: subscribe, Topic: "qos"}, true, ""},
		{tenancy.CheckItem{Action: publish, Topic: "qos"}, false, "a publish keeps its own"},
		{tenancy.CheckItem{Action: subscribe, Topic: "qos 3"}, false, "expected qos to be 0, 1 or 2"},
		{tenancy.CheckItem{Action: publish, Topic: "for ever"}, false, "expected ttl to be 0 to 3600"},
		{tenancy.CheckItem{Action: publish, Topic: "unknown"}, false, "expected an object with allow"},
		{tenancy.CheckItem{Action: publish, Topic: "text"}, false, "expected an object with allow"},
		{tenancy.CheckItem{Action: publish, Topic: "fails"}, false, "mqtt.check:"},
		{tenancy.CheckItem{Action: publish, Topic: "denied"}, false, "not you"},
		{tenancy.CheckItem{Action: publish, Topic: "other"}, false, "undefined"},
	} {
		v := p.Check(t.Context(), policy.TenantInput{ID: "acme", Plan: "pro"}, "x", &tenancy.Arrival{IP: "192.0.2.1", Client: tenancy.Subject{ClientID: "c"}}, &c.item)
		if v.Allow != c.allow || !strings.Contains(v.Reason+v.Why+v.Topic, c.says) {
			t.Errorf("%+v: %+v, want %v %q", c.item, v, c.allow, c.says)
		}
	}
}
