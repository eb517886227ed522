// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"crypto/sha512"
	"encoding/base64"
	"os"
	"path/filepath"
	"testing"

	"github.com/manormq/manor/tenancy/tenancytest"
)

func TestCertificateCommands(t *testing.T) {
	organizationOf(t)
	csr := filepath.Join(t.TempDir(), "x.csr")
	if err := os.WriteFile(csr, []byte(tenancytest.Request()), 0o600); err != nil {
		t.Fatal(err)
	}
	bad(t, 1, "no managed CA", "credential", "ca", "acme")
	shown(t, "BEGIN CERTIFICATE", "credential", "ca", "acme", "--create")
	shown(t, "BEGIN CERTIFICATE", "credential", "ca", "acme")
	shown(t, "BEGIN X509 CRL", "credential", "ca", "acme", "--crl")
	shown(t, "BEGIN CERTIFICATE", "credential", "sign", "acme", "press-7", csr, "--days", "10")
	bad(t, 2, "certificate request", "credential", "sign", "acme", "press-7", os.DevNull)
	v := good(t, "credential", "claim", "create", "acme", "press-8", "--for", "1h")
	shown(t, "press-8", "credential", "claim", "list", "acme")
	shown(t, "taken back", "credential", "claim", "delete", "acme", v["id"].(string))
	bad(t, 1, "no claim", "credential", "claim", "delete", "acme", v["id"].(string))
	shown(t, "signs no more", "credential", "ca", "acme", "--delete")
}

// A file of VerneMQ's vmq-passwd is imported as it is.
func TestImport_VerneMQ(t *testing.T) {
	organizationOf(t)
	sum := sha512.Sum512([]byte("secret" + "salt-salt-sa"))
	line := "dev:$6$" + base64.StdEncoding.EncodeToString([]byte("salt-salt-sa")) + "$" + base64.StdEncoding.EncodeToString(sum[:]) + "\n"
	file := filepath.Join(t.TempDir(), "vmq.passwd")
	if err := os.WriteFile(file, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	shown(t, "done: 1 made", "credential", "import", "acme", file)
}
