// SPDX-License-Identifier: Apache-2.0

package domains

import (
	"strings"
	"testing"

	"github.com/manormq/manor/infra/errs"
)

func TestNormalize(t *testing.T) {
	for name, want := range map[string]string{
		"mqtt.example.com":                      "mqtt.example.com",
		" MQTT.Example.COM. ":                   "mqtt.example.com",
		"bücher.example":                        "xn--bcher-kva.example",
		"xn--bcher-kva.example":                 "xn--bcher-kva.example",
		"a.eu1.mqtt.example":                    "domain_reserved",
		"EU1.mqtt.example":                      "domain_reserved",
		"xeu1.mqtt.example":                     "xeu1.mqtt.example",
		"x.localhost":                           "domain_reserved",
		"":                                      "domain_invalid",
		"com":                                   "domain_invalid",
		"*.example.com":                         "*.example.com",
		" *.Devices.Example.COM. ":              "*.devices.example.com",
		"*.bücher.example":                      "*.xn--bcher-kva.example",
		"*.x.github.io":                         "*.x.github.io",
		"*":                                     "domain_invalid",
		"*.":                                    "domain_invalid",
		"**.example.com":                        "domain_invalid",
		"*.*.example.com":                       "domain_invalid",
		"a.*.example.com":                       "domain_invalid",
		"a*.example.com":                        "domain_invalid",
		"example.*":                             "domain_invalid",
		"*example.com":                          "domain_invalid",
		"_.example.com":                         "domain_invalid",
		"*.com":                                 "domain_invalid",
		"*.co.uk":                               "domain_invalid",
		"*.x.ck":                                "domain_invalid",
		"*.github.io":                           "domain_invalid",
		"*.10.0.0.1":                            "domain_invalid",
		"*.eu1.mqtt.example":                    "domain_reserved",
		"*.acme.eu1.mqtt.example":               "domain_reserved",
		"*.mqtt.example":                        "domain_reserved",
		"*.us1.mqtt.example":                    "*.us1.mqtt.example",
		"*.x.localhost":                         "domain_reserved",
		"*." + strings.Repeat("a.", 117) + "xx": "domain_invalid",
		"a b.example.com":                       "domain_invalid",
		"-a.example.com":                        "domain_invalid",
		"a_b.example.com":                       "domain_invalid",
		"a..b":                                  "domain_invalid",
		"10.0.0.1":                              "domain_invalid",
		"[::1]":                                 "domain_invalid",
		"1.2.3":                                 "domain_invalid",
		"a.example.com:8883":                    "domain_invalid",
		"https://a.example.com":                 "domain_invalid",
		strings.Repeat("a", 64) + ".x":          "domain_invalid",
		strings.Repeat("a.", 118) + "x":         "domain_invalid",
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
