// SPDX-License-Identifier: Apache-2.0

package domains

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/manormq/manor/infra/bus/mem"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/tenancy/managedca"
	"github.com/manormq/manor/tenancy/store"
)

func TestSection_Validate(t *testing.T) {
	for _, c := range []struct {
		edit    func(*Section)
		secrets bool
		want    string
	}{
		{func(*Section) {}, false, ""},
		{func(s *Section) { s.KeyFile = "k" }, false, ""},
		{func(s *Section) { s.KeyFile, s.ACME.Enabled = "k", true }, true, ""},
		{func(s *Section) { s.KeyFile, s.ACME.Enabled = "k", true }, false, "secrets_key_file"},
		{func(s *Section) { s.ACME.Enabled = true }, true, "key_file"},
		{func(s *Section) { s.KeyFile, s.ACME.Enabled, s.ACME.Directory = "k", true, "http://ca.example/dir" }, true, "https"},
		{func(s *Section) { s.KeyFile, s.ACME.Enabled, s.ACME.Orders = "k", true, 2 }, true, "acme.orders"},
		{func(s *Section) { s.ACME.Email = "Ops <ops@example.com>" }, true, "acme.email"},
		{func(s *Section) { s.ACME.Email = "ops@example.com" }, true, ""},
		{func(s *Section) { s.ACME.EABKeyID = "kid" }, true, "both eab_key_id and eab_hmac_file"},
		{func(s *Section) { s.ACME.EABKeyID, s.ACME.EABFile = "kid", "f" }, true, ""},
		{func(s *Section) { s.Resolver = "192.0.2.53" }, true, "host:port"},
	} {
		s := DefaultSection()
		c.edit(&s)
		if err := s.Validate(c.secrets); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", s, err, c.want)
		}
	}
}

func TestOpen(t *testing.T) {
	folder := t.TempDir()
	key, short, text := filepath.Join(folder, "key"), filepath.Join(folder, "short"), filepath.Join(folder, "text")
	if err := managedca.MakeKeyFile(key); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{short, text} {
		if err := os.WriteFile(file, []byte("nonsense"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mac := filepath.Join(folder, "mac")
	if err := os.WriteFile(mac, []byte("MDEyMzQ1Njc4OTAxMjM0NTY3ODk_-w==\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	records, err := store.New(t.Context(), store.Config{Bus: mem.New(), Log: telemetry.Discard(), Region: "local"})
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := managedca.LoadSealer(key)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ key, ca, eab, want string }{
		{key, "", "", ""},
		{"", "", "", ""},
		{short, "", "", "domains.key_file"},
		{key, text, "", "domains.acme: expected certificates in PEM"},
		{key, filepath.Join(folder, "missing"), "", "domains.acme: expected a PEM file"},
		{key, "", mac, ""},
		{key, "", text, "domains.acme.eab_hmac_file: expected an HMAC key of 16 bytes or more in base64url"},
		{key, "", filepath.Join(folder, "missing"), "domains.acme.eab_hmac_file: expected a file with the HMAC key"},
	} {
		section := DefaultSection()
		if c.eab != "" {
			section.ACME.EABKeyID, section.ACME.EABFile = "kid", c.eab
		}
		section.KeyFile, section.ACME.CAFile, section.ACME.Enabled = c.key, c.ca, c.key != ""
		if looked := section.CheckFiles(); (looked == nil) != (c.want == "") || looked != nil && !strings.Contains(looked.Error(), strings.TrimPrefix(strings.TrimPrefix(c.want, "domains."), "acme: ")) {
			t.Errorf("%+v: looked at, %v, want %q", c, looked, c.want)
		}
		_, end, err := Open(t.Context(), section, sealer, Config{Store: records, Log: telemetry.Discard()})
		if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || !errs.Is(err, errs.Invalid)) {
			t.Errorf("%+v: %v, want %q", c, err, c.want)
		}
		if err == nil {
			end()
		}
	}
}
