// SPDX-License-Identifier: Apache-2.0

package tenancy_test

import (
	"crypto/tls"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/tenancytest"
)

func chain(t *testing.T, pair tls.Certificate) []*x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return []*x509.Certificate{c}
}

func TestClientCAs(t *testing.T) {
	ca, other := tenancytest.NewCA(t, "ca"), tenancytest.NewCA(t, "other")
	leaf := tenancytest.PEM("CERTIFICATE", ca.Issue(2, "press-7").Certificate[0])
	for want, c := range map[string]tenancy.ClientCAs{
		"":                           {Certificates: ca.PEM() + other.PEM(), CRL: ca.CRL(2), ClientCerts: "optional", Identity: "cn", Authenticates: true},
		"block CERTIFICATE":          {ClientCerts: "optional"},
		"optional or required":       {Certificates: ca.PEM()},
		"cn, san or nothing":         {Certificates: ca.PEM(), ClientCerts: "optional", Identity: "dn"},
		"use_identity_as_username w": {Certificates: ca.PEM(), ClientCerts: "required", Authenticates: true},
		"certificate 2":              {Certificates: ca.PEM() + leaf, ClientCerts: "required"},
		"private key":                {Certificates: ca.PEM() + tenancytest.PEM("EC PRIVATE KEY", []byte("x")), ClientCerts: "required"},
		"certificate 1":              {Certificates: tenancytest.PEM("CERTIFICATE", []byte("x")), ClientCerts: "required"},
		"no CA that is trusted":      {Certificates: ca.PEM(), CRL: other.CRL(), ClientCerts: "required"},
		"block X509 CRL":             {Certificates: ca.PEM(), CRL: leaf, ClientCerts: "required"},
		"131072 bytes":               {Certificates: ca.PEM() + strings.Repeat(" ", 128<<10), ClientCerts: "required"},
		"262144 bytes":               {Certificates: ca.PEM(), CRL: strings.Repeat(" ", 257<<10), ClientCerts: "required"},
	} {
		trust, err := c.Trust()
		switch {
		case want == "":
			if err != nil || len(trust.Authorities()) != 2 || trust.Revoked() != 1 {
				t.Errorf("%+v, %v", trust, err)
			}
		case err == nil || !strings.Contains(err.Error(), want) || errs.CodeOf(err) != "client_cas_invalid" || !errs.Is(err, errs.Invalid):
			t.Errorf("got %v, expected %q", err, want)
		}
	}
}

func TestTrust(t *testing.T) {
	ca, other := tenancytest.NewCA(t, "ca"), tenancytest.NewCA(t, "ca") // of the same name
	trust, err := tenancy.ParseTrust([]byte(ca.PEM()), []byte(ca.CRL(66)))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		ca     *tenancytest.CA
		serial int64
		after  time.Duration
		good   bool
	}{
		{ca, 2, 0, true}, {ca, 66, 0, false}, {ca, 2, 2 * time.Hour, false}, {other, 2, 0, false},
	} {
		if err := trust.Verify(chain(t, c.ca.Issue(c.serial, "x")), time.Now().Add(c.after)); (err == nil) != c.good {
			t.Errorf("%+v: %v", c, err)
		}
	}
	cert := chain(t, ca.Issue(3, "press-7"))[0]
	for kind, want := range map[string]string{tenancy.IdentityCN: "press-7", tenancy.IdentitySAN: "urn:dev:press-7", "": ""} {
		if got := tenancy.CertificateName(kind, cert); got != want {
			t.Errorf("%s: %q", kind, got)
		}
	}
}

// What was good is verified anew only where a CA of its chain has gone, or
// something in it is revoked.
func TestTrust_Recheck(t *testing.T) {
	ca, other := tenancytest.NewCA(t, "ca"), tenancytest.NewCA(t, "other")
	between := ca.Under(7, "between")
	leaf := append(chain(t, between.Issue(2, "press-7")), between.Cert)
	trust := func(cas, crls string) *tenancy.Trust {
		t.Helper()
		tr, err := tenancy.ParseTrust([]byte(cas), []byte(crls))
		if err != nil {
			t.Fatal(err)
		}
		return tr
	}
	was := trust(ca.PEM()+other.PEM(), "")
	if err := was.Verify(leaf, time.Now()); err != nil {
		t.Fatal(err)
	}
	late := time.Now().Add(2 * time.Hour) // when it is not good any more, if somebody looks
	for _, c := range []struct {
		what string
		next *tenancy.Trust
		now  time.Time
		good bool
	}{
		{"the same", trust(ca.PEM()+other.PEM(), ""), late, true},
		{"another CA has gone", trust(ca.PEM(), ca.CRL(8)), late, true},
		{"its CA has gone", trust(other.PEM(), ""), time.Now(), false},
		{"its CA has gone, one below it is trusted", trust(between.PEM(), ""), time.Now(), true},
		{"the CA between is revoked", trust(ca.PEM(), ca.CRL(7)), time.Now(), false},
		{"it is revoked", trust(ca.PEM()+between.PEM(), between.CRL(2)), time.Now(), false},
	} {
		if err := c.next.Recheck(leaf, was.Gone(c.next), c.now); (err == nil) != c.good {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}

// FuzzClientCAs: whatever a tenant sends as PEM is taken with at least one CA, or
// is Invalid.
func FuzzClientCAs(f *testing.F) {
	ca := tenancytest.NewCA(f, "ca")
	f.Add(ca.PEM(), ca.CRL(66))
	f.Add(ca.PEM()+tenancytest.PEM("CERTIFICATE", []byte("x")), "")
	f.Add("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", "-----BEGIN X509 CRL-----")
	f.Fuzz(func(t *testing.T, certs, crl string) {
		trust, err := (&tenancy.ClientCAs{Certificates: certs, CRL: crl, ClientCerts: tenancy.ClientCertsOptional}).Trust()
		switch {
		case err == nil && len(trust.Authorities()) == 0:
			t.Error("taken without a CA")
		case err != nil && !errs.Is(err, errs.Invalid):
			t.Errorf("expected Invalid, got %v", err)
		}
	})
}
