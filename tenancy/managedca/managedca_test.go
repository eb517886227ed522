// SPDX-License-Identifier: Apache-2.0

package managedca

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

func request(t *testing.T, key crypto.Signer, template *x509.CertificateRequest) string {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestSign(t *testing.T) {
	now := time.Now()
	ca, key, err := New("acme devices", now)
	if err != nil {
		t.Fatal(err)
	}
	own := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	// What a request asks for beside its key is not given.
	csr := request(t, own, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "admin", Organization: []string{"x"}}, DNSNames: []string{"api.example"}})
	r := must(ParseRequest(csr))(t)
	got := must(Sign(ca, key, r, "press-7", 30, now))(t)
	trust := must(tenancy.ParseTrust([]byte(ca), nil))(t)
	block, _ := pem.Decode([]byte(got.Certificate))
	c := must(x509.ParseCertificate(block.Bytes))(t)
	if err := trust.Verify([]*x509.Certificate{c}, now); err != nil {
		t.Error(err)
	}
	if tenancy.CertificateName(tenancy.IdentityCN, c) != "press-7" || tenancy.CertificateName(tenancy.IdentitySAN, c) != "" || len(c.Subject.Organization) != 0 || c.IsCA ||
		!own.PublicKey.Equal(c.PublicKey) || c.SerialNumber.Text(16) != got.Serial {
		t.Errorf("%+v", c.Subject)
	}
	if err := trust.Verify([]*x509.Certificate{c}, now.Add(31*24*time.Hour)); err == nil {
		t.Error("it is good for too long")
	}
	if again := must(Sign(ca, key, r, "press-7", 30, now))(t); again.Serial == got.Serial {
		t.Error("two certificates have one serial number")
	}
	if last := must(Sign(ca, key, r, "press-7", DaysMax, now.Add(caLife-time.Hour)))(t); last.NotAfter.After(now.Add(caLife)) {
		t.Error("it is good for longer than its CA")
	}
	for name, f := range map[string]func() error{
		"no name":   func() error { _, err := Sign(ca, key, r, "", 30, now); return err },
		"long name": func() error { _, err := Sign(ca, key, r, strings.Repeat("x", 65), 30, now); return err },
		"no days":   func() error { _, err := Sign(ca, key, r, "x", 0, now); return err },
		"long":      func() error { _, err := Sign(ca, key, r, "x", DaysMax+1, now); return err },
	} {
		if err := f(); !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The CA makes no further CA.
	client := must(x509.ParseCertificate(block.Bytes))(t)
	if client.KeyUsage&x509.KeyUsageCertSign != 0 {
		t.Error("a client may sign certificates")
	}
}

func TestParseRequest(t *testing.T) {
	small := must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader))(t)
	good := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	text := request(t, good, &x509.CertificateRequest{})
	block, _ := pem.Decode([]byte(text))
	der := bytes.Clone(block.Bytes)
	der[len(der)-3] ^= 1 // the signature
	bad := map[string]string{
		"nothing": "", "rubbish": "x", "other": strings.ReplaceAll(text, "CERTIFICATE REQUEST", "CERTIFICATE"), "long": strings.Repeat("x", csrMax+1),
		"P-224":     request(t, small, &x509.CertificateRequest{}),
		"signature": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})),
	}
	for name, text := range bad {
		if _, err := ParseRequest(text); errs.CodeOf(err) != "csr_invalid" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ParseRequest(text); err != nil {
		t.Error(err)
	}
}

func TestSealer(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a", "secrets.key")
	if _, err := LoadSealer(file); !errs.Is(err, errs.Invalid) {
		t.Errorf("no file: %v", err)
	}
	for range 2 { // the second time it is there
		if err := MakeKeyFile(file); err != nil {
			t.Fatal(err)
		}
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st, err)
	}
	s, again := must(LoadSealer(file))(t), must(LoadSealer(file))(t)
	sealed := s.Seal("acme", []byte("secret"))
	if bytes.Contains(sealed, []byte("secret")) {
		t.Error("it is not sealed")
	}
	if text, err := again.Open("acme", sealed); err != nil || string(text) != "secret" {
		t.Errorf("%q, %v", text, err)
	}
	other := must(NewSealer(make([]byte, 32)))(t)
	if _, err := other.Open("acme", sealed); !errs.Is(err, errs.Internal) {
		t.Errorf("another key: %v", err)
	}
	if _, err := s.Open("beta", sealed); !errs.Is(err, errs.Internal) {
		t.Errorf("another tenant's: %v", err)
	}
	if _, err := NewSealer([]byte("short")); !errs.Is(err, errs.Invalid) {
		t.Errorf("a short key: %v", err)
	}
}
