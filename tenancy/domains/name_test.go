// SPDX-License-Identifier: Apache-2.0

package domains

import (
	"strings"
	"testing"

	"github.com/manormq/manor/infra/errs"
)

func TestNormalize(t *testing.T) {
	for name, want := range map[string]string{
		"mqtt.example.com":              "mqtt.example.com",
		" MQTT.Example.COM. ":           "mqtt.example.com",
		"bücher.example":                "xn--bcher-kva.example",
		"xn--bcher-kva.example":         "xn--bcher-kva.example",
		"a.eu1.mqtt.example":            "domain_reserved",
		"EU1.mqtt.example":              "domain_reserved",
		"xeu1.mqtt.example":             "xeu1.mqtt.example",
		"x.localhost":                   "domain_reserved",
		"":                              "domain_invalid",
		"com":                           "domain_invalid",
		"*.example.com":                 "domain_invalid",
		"a b.example.com":               "domain_invalid",
		"-a.example.com":                "domain_invalid",
		"a_b.example.com":               "domain_invalid",
		"a..b":                          "domain_invalid",
		"10.0.0.1":                      "domain_invalid",
		"[::1]":                         "domain_invalid",
		"1.2.3":                         "domain_invalid",
		"a.example.com:8883":            "domain_invalid",
		"https://a.example.com":         "domain_invalid",
		strings.Repeat("a", 64) + ".x":  "domain_invalid",
		strings.Repeat("a.", 118) + "x": "domain_invalid",
	} {
		got, err := Normalize(name, "eu1.mqtt.example.")
		if err != nil {
			got = errs.CodeOf(err)
		}
		if got != want {
			t.Errorf("%q: %s (%v), want %s", name, got, err, want)
		}
	}
}
