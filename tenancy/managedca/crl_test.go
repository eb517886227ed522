// SPDX-License-Identifier: Apache-2.0

package managedca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"github.com/manormq/manor/tenancy"
)

func TestCRL(t *testing.T) {
	now := time.Now()
	ca, key, err := New("acme devices", now)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(ca))
	parent := must(x509.ParseCertificate(block.Bytes))(t)
	own := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	r := must(ParseRequest(request(t, own, &x509.CertificateRequest{})))(t)
	got := must(Sign(ca, key, r, "press-7", 30, now))(t)
	block, _ = pem.Decode([]byte(got.Certificate))
	leaf := must(x509.ParseCertificate(block.Bytes))(t)
	serial, ok := ParseSerial(got.Serial)
	if !ok || serial.Cmp(leaf.SerialNumber) != 0 {
		t.Fatalf("the serial number %s is %v", got.Serial, serial)
	}
	var before *big.Int
	for n, revoked := range [][]Revoked{
		nil,
		{{Serial: big.NewInt(77), At: now, Hold: true}},
		{{Serial: serial, At: now}, {Serial: big.NewInt(77), At: now, Hold: true}, {Serial: big.NewInt(77), At: now}},
	} {
		der := must(CRL(ca, key, revoked, now.Add(time.Duration(n)*time.Millisecond)))(t)
		list := must(x509.ParseRevocationList(der))(t)
		if err := list.CheckSignatureFrom(parent); err != nil {
			t.Error(err)
		}
		if len(list.RevokedCertificateEntries) != n || before != nil && list.Number.Cmp(before) <= 0 || len(list.AuthorityKeyId) == 0 ||
			!list.NextUpdate.After(now.Add(CRLLife-time.Minute)) || list.ThisUpdate.After(now) {
			t.Errorf("the list with %d: number %v, %d entries, from %v to %v", n, list.Number, len(list.RevokedCertificateEntries), list.ThisUpdate, list.NextUpdate)
		}
		before = list.Number
		for _, e := range list.RevokedCertificateEntries {
			if (e.ReasonCode == 6) != (e.SerialNumber.Int64() == 77) {
				t.Errorf("%v: reason %d", e.SerialNumber, e.ReasonCode)
			}
		}
		// What verifies with lists follows it.
		trust := must(tenancy.ParseTrust([]byte(ca), pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})))(t)
		if err := trust.Verify([]*x509.Certificate{leaf}, now); (err != nil) != (n == 2) {
			t.Errorf("the list with %d: %v", n, err)
		}
	}
	if _, err := CRL("x", key, nil, now); err == nil {
		t.Error("no CA")
	}
	if _, err := CRL(ca, []byte("x"), nil, now); err == nil {
		t.Error("no key")
	}
	for _, bad := range []string{"", "0", "-1", "+1", "x", "1_0", "0102030405060708090a0b0c0d0e0f101112131415"} {
		if n, ok := ParseSerial(bad); ok {
			t.Errorf("%q is %v", bad, n)
		}
	}
}
