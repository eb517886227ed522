// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/manormq/manor/tenancy/tenancytest"
)

func TestDomainCommands(t *testing.T) {
	_, names := organizationWithDNS(t)
	const fqdn = "mqtt.acme.example"
	shown(t, "_manor-challenge."+fqdn+". IN TXT", "domain", "create", "acme", fqdn, "--uploaded")
	shown(t, "IN CNAME acme.localhost.", "domain", "show", "acme", fqdn)
	shown(t, "pending", "domain", "list", "acme")
	bad(t, 1, "found none", "domain", "verify", "acme", fqdn)
	bad(t, 2, "belongs to this installation", "domain", "create", "acme", "beta.localhost")
	bad(t, 1, "has no domain", "domain", "renew", "acme", "x.example.com")
	challenge := good(t, "domain", "show", "acme", fqdn)["challenge"].(map[string]any)
	names.Text(challenge["name"].(string), challenge["value"].(string))
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if _, code := run("domain", "verify", "acme", fqdn); code == 0 {
			break
		} else if time.Now().After(end) {
			t.Fatal("it is not verified")
		}
	}
	chain, key := tenancytest.NewCA(t, "own").Server(2, time.Now().Add(time.Hour), fqdn)
	folder := t.TempDir()
	files := []string{filepath.Join(folder, "chain.pem"), filepath.Join(folder, "key.pem")}
	for i, text := range []string{chain, key} {
		if err := os.WriteFile(files[i], []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	bad(t, 2, "no such file", "domain", "upload", "acme", fqdn, files[0], filepath.Join(folder, "missing"))
	bad(t, 2, "private key", "domain", "upload", "acme", fqdn, files[0], files[0])
	shown(t, "is active, its certificate uploaded until", "domain", "upload", "acme", fqdn, files[0], files[1])
	bad(t, 1, "upload another one", "domain", "renew", "acme", fqdn)
	shown(t, "is deleted", "domain", "delete", "acme", fqdn)
	bad(t, 1, "has no domain", "domain", "show", "acme", fqdn)
	bad(t, 2, "--uploaded", "domain", "create", "acme", "*.devices.acme.example")
	shown(t, "_manor-challenge.devices.acme.example. IN TXT", "domain", "create", "acme", "*.devices.acme.example", "--uploaded")
	shown(t, "*.devices.acme.example. IN CNAME", "domain", "show", "acme", "*.devices.acme.example")
	shown(t, "is deleted", "domain", "delete", "acme", "*.devices.acme.example")
}
