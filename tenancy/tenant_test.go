// SPDX-License-Identifier: Apache-2.0

package tenancy

import (
	"strings"
	"testing"

	"github.com/manormq/manor/infra/errs"
)

func TestValidTenantID(t *testing.T) {
	for id, code := range map[string]string{
		"acme":                     "",
		"a-1":                      "",
		"1acme":                    "",
		"123":                      "",
		strings.Repeat("a", 63):    "",
		"dev":                      "",
		"":                         "tenant_invalid",
		"ab":                       "tenant_invalid",
		strings.Repeat("a", 64):    "tenant_invalid",
		"Acme":                     "tenant_invalid",
		"-acme":                    "tenant_invalid",
		"acme-":                    "tenant_invalid",
		"ac_me":                    "tenant_invalid",
		"ac.me":                    "tenant_invalid",
		"ac:me":                    "tenant_invalid",
		"acmé":                     "tenant_invalid",
		"xn--acme":                 "tenant_invalid",
		"../../etc":                "tenant_invalid",
		"api":                      "tenant_reserved",
		"localhost":                "tenant_reserved",
		"acme\x00":                 "tenant_invalid",
		"acme acme":                "tenant_invalid",
		strings.Repeat("a-", 1000): "tenant_invalid",
	} {
		err := ValidTenantID(id)
		if got := errs.CodeOf(err); got != code || (err != nil) != (code != "") {
			t.Errorf("ValidTenantID(%.20q) = %v, want code %q", id, err, code)
		}
	}
}

func TestValid(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		ok   bool
	}{
		{"username", ValidUsername("sensor-1"), true},
		{"username with colon and slash", ValidUsername("a:b/c é"), true},
		{"empty username", ValidUsername(""), false},
		{"long username", ValidUsername(strings.Repeat("x", 257)), false},
		{"username with newline", ValidUsername("a\nb"), false},
		{"username not UTF-8", ValidUsername("a\xff"), false},
		{"organization", ValidOrganization("Acme GmbH & Co"), true},
		{"empty organization", ValidOrganization(""), false},
		{"organization not UTF-8", ValidOrganization("\xff"), false},
		{"device password", ValidDevicePassword("secret", "sensor-1"), true},
		{"short device password", ValidDevicePassword("12345", "sensor-1"), false},
		{"password is username", ValidDevicePassword("sensor-1", "sensor-1"), false},
		{"huge password", ValidDevicePassword(strings.Repeat("x", 1025), "a"), false},
		{"account password", ValidAccountPassword("12345678", "a@b.c"), true},
		{"short account password", ValidAccountPassword("1234567", "a@b.c"), false},
		{"password is email", ValidAccountPassword("OPS@acme.example", "ops@acme.example"), false},
		{"email", ValidEmail("ops@acme.example"), true},
		{"email at localhost", ValidEmail("ops@localhost"), true},
		{"email without domain", ValidEmail("ops@"), false},
		{"email without dot", ValidEmail("ops@acme"), false},
		{"two at signs", ValidEmail("a@b@c.d"), false},
		{"email with dots and slashes", ValidEmail("ops@new.ex../..ample"), false},
		{"email in brackets", ValidEmail("<ops@acme.example>"), false},
		{"email with a plus", ValidEmail("o'ps+x@acme.example"), true},
		{"email with letters beyond ASCII", ValidEmail("käse@käse.example"), true},
		{"email with newline", ValidEmail("a@b.c\r\nBcc: x"), false},
	} {
		if (c.err == nil) != c.ok {
			t.Errorf("%s: %v, want ok %v", c.name, c.err, c.ok)
		}
		if c.err != nil && (errs.KindOf(c.err) != errs.Invalid || errs.CodeOf(c.err) == "") {
			t.Errorf("%s: kind %v code %q, want Invalid with a code", c.name, errs.KindOf(c.err), errs.CodeOf(c.err))
		}
	}
}
