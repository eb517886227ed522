// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"slices"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// challengeProto is the ALPN name by which a certificate authority asks whether a host
// name is served here (RFC 8737 §6.2). Nothing but the handshake follows.
const challengeProto = "acme-tls/1"

// challengeLife is how long the certificate that answers is good, both ways.
const challengeLife = time.Hour

// custom is the custom domain of that name; nil if there is none.
func (l *Listener) custom(name string) *tenancy.CustomHost {
	if l.opts.Hosts == nil || name == "" {
		return nil
	}
	return l.opts.Hosts(name)
}

// challenges reports whether a hello is of a certificate authority that wants a
// challenge answered.
func challenges(hello *tls.ClientHelloInfo) bool {
	return slices.Equal(hello.SupportedProtos, []string{challengeProto})
}

// challengeConfig answers a challenge (TLS-ALPN-01, RFC 8737 §3); nil if none is to be
// answered for that name. The turn of the handshake has begun if there is no error.
func (l *Listener) challengeConfig(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	h := l.custom(hello.ServerName)
	if h == nil || len(h.Host().Challenge) == 0 {
		l.opts.Refused(l, "unknown_sni")
		return nil, nil
	}
	if err := l.begin(hello, h.Host().Tenant); err != nil {
		return nil, err
	}
	cert, err := challengeCertificate(h.Host().FQDN, h.Host().Challenge, time.Now())
	if err != nil {
		l.log.Error("a challenge of a certificate authority cannot be answered", "host", h.Host().FQDN, "error", err)
		return nil, err
	}
	l.log.Info("a challenge of a certificate authority is answered", "host", h.Host().FQDN, "peer", hello.Conn.RemoteAddr().String())
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{challengeProto}, Certificates: []tls.Certificate{*cert}, SessionTicketsDisabled: true,
	}, nil
}

// challengeCertificate is signed with its own key, and has the digest in the extension
// id-pe-acmeIdentifier.
func challengeCertificate(fqdn string, digest []byte, now time.Time) (*tls.Certificate, error) {
	value, err := asn1.Marshal(digest)
	if err != nil {
		return nil, errs.New(errs.Internal, "challenge: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, errs.New(errs.Internal, "challenge: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: "challenge"}, DNSNames: []string{fqdn},
		NotBefore: now.Add(-challengeLife), NotAfter: now.Add(challengeLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 31}, Critical: true, Value: value}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, errs.New(errs.Internal, "challenge: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
