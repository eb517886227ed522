// SPDX-License-Identifier: Apache-2.0

package tenancy

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/manormq/manor/infra/errs"
)

// Over and Table join fields by their places.
func TestSettings_FieldsStandInOrder(t *testing.T) {
	a, b := reflect.TypeFor[Settings](), reflect.TypeFor[SettingsOverride]()
	if a.NumField() != b.NumField() {
		t.Fatalf("%d settings, %d overrides", a.NumField(), b.NumField())
	}
	for i := range a.NumField() {
		x, y := a.Field(i), b.Field(i)
		of := y.Type
		if of.Kind() == reflect.Pointer {
			of = of.Elem()
		}
		if x.Name != y.Name || x.Type != of {
			t.Errorf("field %d: %s %v and %s %v", i, x.Name, x.Type, y.Name, y.Type)
		}
		for _, tag := range []string{"doc", "told", "live"} {
			if y.Tag.Get(tag) == "" {
				t.Errorf("%s has no %s", y.Name, tag)
			}
		}
	}
}

func TestSettings_Over(t *testing.T) {
	var o SettingsOverride
	if err := json.Unmarshal([]byte(`{"maximum_qos":0,"retain_available":false,"allowed_protocol_versions":["5"],"queue_type":"lifo"}`), &o); err != nil {
		t.Fatal(err)
	}
	if err := o.Valid(); err != nil {
		t.Fatal(err)
	}
	s := o.Over(DefaultSettings())
	if s.MaximumQoS != 0 || s.RetainAvailable || len(s.AllowedProtocolVersions) != 1 || s.QueueType != "lifo" || !s.SharedAvailable {
		t.Errorf("settings %+v", s)
	}
	if none := (*SettingsOverride)(nil); !reflect.DeepEqual(none.Over(s), s) || none.Valid() != nil || none.Table()[0].Set {
		t.Error("a nil override does something")
	}
	set := 0
	for _, row := range o.Table() {
		if row.Set {
			set++
		}
	}
	if set != 4 {
		t.Errorf("%d rows are set, expected 4", set)
	}
	// The defaults are within their own bounds.
	var all SettingsOverride
	v, d := reflect.ValueOf(&all).Elem(), reflect.ValueOf(DefaultSettings())
	for i := range v.NumField() {
		p := reflect.New(d.Field(i).Type())
		p.Elem().Set(d.Field(i))
		if v.Field(i).Kind() == reflect.Pointer {
			v.Field(i).Set(p)
		} else {
			v.Field(i).Set(p.Elem())
		}
	}
	if err := all.Valid(); err != nil {
		t.Error(err)
	}
}

func TestSettings_Invalid(t *testing.T) {
	for _, text := range []string{
		`{"maximum_qos":3}`, `{"maximum_qos":-1}`, `{"max_client_id_size":0}`, `{"queue_type":"stack"}`, `{"allowed_protocol_versions":[]}`,
		`{"allowed_protocol_versions":["4"]}`, `{"retry_interval":65536}`, `{"shared_subscription_policy":""}`,
		`{"response_information":"a\u0000b"}`, `{"server_reference":"` + strings.Repeat("x", 1025) + `"}`,
	} {
		var o SettingsOverride
		if err := json.Unmarshal([]byte(text), &o); err != nil {
			t.Fatal(err)
		}
		if err := o.Valid(); errs.CodeOf(err) != "setting_invalid" {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// A credential's quotas narrow its tenant's, and its settings replace them.
func TestRules(t *testing.T) {
	qos, retry := int64(1), int64(7)
	tenant := &Tenant{Limits: NoLimits(), Settings: &SettingsOverride{MaximumQoS: &qos}}
	tenant.Limits.QueueMessages = 100
	o := &SessionOverride{Settings: &SettingsOverride{RetryInterval: &retry}, Quotas: map[string]int64{"queue_messages": 1000, "topic_levels": 4}}
	if err := o.Valid(); err != nil {
		t.Fatal(err)
	}
	l, s := tenant.Rules(o)
	if l.QueueMessages != 100 || l.TopicLevels != 4 || s.MaximumQoS != 1 || s.RetryInterval != 7 {
		t.Errorf("limits %d %d, settings %d %d", l.QueueMessages, l.TopicLevels, s.MaximumQoS, s.RetryInterval)
	}
	for text, code := range map[string]string{
		`{"quotas":{"connections":1}}`:                "quota_unknown",
		`{"quotas":{"topic_levels":0}}`:               "limit_invalid",
		`{"settings":{"server_reference":"x"}}`:       "setting_invalid",
		`{"settings":{"max_client_id_size":23}}`:      "setting_invalid",
		`{"settings":{"max_inflight_messages":-1}}`:   "setting_invalid",
		`{"settings":{"queue_deliver_mode":"never"}}`: "setting_invalid",
	} {
		var o SessionOverride
		if err := json.Unmarshal([]byte(text), &o); err != nil {
			t.Fatal(err)
		}
		if err := o.Valid(); errs.CodeOf(err) != code {
			t.Errorf("%s: %v, want %s", text, err, code)
		}
	}
}
