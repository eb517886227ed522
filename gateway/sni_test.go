// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/manormq/manor/gateway"
	"github.com/manormq/manor/infra/mqtt"
)

// helloOf is the ClientHello of crypto/tls with the server name placeholder,
// which has the length of name, replaced by name: crypto/tls itself sends no
// address, other clients do.
func helloOf(t *testing.T, name string) []byte {
	t.Helper()
	placeholder := []byte("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx")[:len(name)]
	ours, theirs := net.Pipe()
	defer ours.Close()
	go func() {
		_ = tls.Client(theirs, &tls.Config{ServerName: string(placeholder), InsecureSkipVerify: true}).Handshake()
	}()
	header := make([]byte, 5)
	if _, err := io.ReadFull(ours, header); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 5+int(binary.BigEndian.Uint16(header[3:])))
	copy(b, header)
	if _, err := io.ReadFull(ours, b[5:]); err != nil {
		t.Fatal(err)
	}
	for i := range len(b) - len(name) {
		if string(b[i:i+len(name)]) == string(placeholder) {
			copy(b[i:], name)
			return b
		}
	}
	t.Fatal("the ClientHello does not show its server name")
	return nil
}

func TestServerNamesThatNameNoTenant(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	for name, handshake := range map[string]bool{
		"127.0.0.1": true, "::1": true, "LOCALHOST": true, "localhost": true,
		"nobody.localhost": false, "example.com": false,
	} {
		c, err := net.Dial("tcp", w.addr("mqtts"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write(helloOf(t, name)); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		kind := make([]byte, 1)
		if _, err := io.ReadFull(c, kind); err != nil {
			t.Fatal(err)
		}
		if got := kind[0] == 22; got != handshake { // 22 is a handshake record, 21 an alert
			t.Errorf("%s: the server answers with a record of type %d", name, kind[0])
		}
	}
	// The rules for who names no host decide.
	for _, c := range []struct {
		user   string
		reason mqtt.ReasonCode
	}{{"beta:dev", mqtt.Success}, {"dev", mqtt.NotAuthorized}} {
		config := w.tls("")
		config.ServerName = "localhost"
		conn, err := tls.Dial("tcp", w.addr("mqtts"), config)
		if err != nil {
			t.Fatal(err)
		}
		p := hello("x")
		p.Username = c.user
		if k := w.client(conn).connect(p); k.Reason != c.reason {
			t.Errorf("%s: CONNACK %v", c.user, k.Reason)
		}
	}
}

func TestCertificatesByHost(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	w := start(t, func(_ *world, c *gateway.Config) {
		c.Listeners[1].CertDir, c.Listeners[3].CertDir = folder, folder
	})
	serial := func(listener, host string) int64 {
		config := w.tls("")
		config.ServerName = host
		c, err := tls.Dial("tcp", w.addr(listener), config)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	write := func(host string, n int64) {
		w.certPair(filepath.Join(folder, host+".pem"), filepath.Join(folder, host+".key"), n, host)
	}
	if got := serial("mqtts", "acme.localhost"); got != 1 {
		t.Errorf("without a file: serial %d, expected the default certificate", got)
	}
	write("acme.localhost", 7)
	for _, listener := range []string{"mqtts", "wss"} {
		if got := serial(listener, "ACME.localhost"); got != 7 {
			t.Errorf("%s, as soon as the file is there: serial %d", listener, got)
		}
	}
	if got := serial("mqtts", "beta.localhost"); got != 1 {
		t.Errorf("another host: serial %d", got)
	}
	if got := serial("mqtts", "localhost"); got != 1 {
		t.Errorf("no tenant's host: serial %d", got)
	}
	write("acme.localhost", 8)
	w.eventually("the new certificate", func() bool { return serial("mqtts", "acme.localhost") == 8 })
	if err := os.WriteFile(filepath.Join(folder, "beta.localhost.pem"), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := serial("mqtts", "beta.localhost"); got != 1 {
		t.Errorf("with a broken file: serial %d, expected the default certificate", got)
	}
}
