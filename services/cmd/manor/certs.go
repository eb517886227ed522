// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// hostsFolder is the folder, below that of all keys, of tenants' certificates.
const hostsFolder = "hosts"

// devDomain is the domain of tenants' hostnames in manor dev: names below it
// are loopback by RFC 6761.
const devDomain = "localhost"

// authority is the CA of one data folder. It makes the certificates of the
// listeners and of the nodes.
type authority struct {
	dir   string // of keys and certificates
	hosts string // in it, those of tenants
	file  string // ca.pem
	cert  *x509.Certificate
	key   *ecdsa.PrivateKey
}

// openAuthority reads the CA of the data folder, and makes it on first use.
func openAuthority(data string) (*authority, error) {
	a := &authority{dir: filepath.Join(data, "pki"), file: filepath.Join(data, "ca.pem")}
	a.hosts = filepath.Join(a.dir, hostsFolder)
	if err := os.MkdirAll(a.hosts, 0o700); err != nil {
		return nil, err
	}
	var err error
	if a.key, err = a.keyOf("ca"); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(a.file)
	if err == nil {
		block, _ := pem.Decode(text)
		if block == nil {
			return nil, fmt.Errorf("%s is no certificate in PEM: remove it to get another", a.file)
		}
		if a.cert, err = x509.ParseCertificate(block.Bytes); err != nil {
			return nil, fmt.Errorf("%s: %w", a.file, err)
		}
		if !a.key.PublicKey.Equal(a.cert.PublicKey) {
			return nil, fmt.Errorf("%s does not belong to the key in %s: remove both to get others", a.file, a.dir)
		}
		return a, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "Manor dev CA", Organization: []string{"Manor"}}, IsCA: true,
		BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := a.sign(template, template, &a.key.PublicKey, 10*365*24*time.Hour)
	if err != nil {
		return nil, err
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	return a, writePEM(a.file, "CERTIFICATE", der, 0o644)
}

// keyOf reads the key of that name, and makes it on first use.
func (a *authority) keyOf(name string) (*ecdsa.PrivateKey, error) {
	file := a.keyFile(name)
	text, err := os.ReadFile(file)
	if err == nil {
		block, _ := pem.Decode(text)
		if block == nil {
			return nil, fmt.Errorf("%s is no key in PEM", file)
		}
		return x509.ParseECPrivateKey(block.Bytes)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, writePEM(file, "EC PRIVATE KEY", der, 0o600)
}

func (a *authority) keyFile(name string) string  { return filepath.Join(a.dir, name+".key") }
func (a *authority) certFile(name string) string { return filepath.Join(a.dir, name+".pem") }

// leafLife is how long listeners' and nodes' certificates are valid; each start
// makes new ones.
const leafLife = 397 * 24 * time.Hour

// listeners makes the certificate of the TLS listeners for clients that name no
// tenant: for localhost and any name below it. It names no tenant, because every
// client sees it.
func (a *authority) listeners() (certFile, keyFile string, err error) {
	return a.leaf("listeners", &x509.Certificate{
		Subject: pkix.Name{CommonName: devDomain}, DNSNames: []string{devDomain, "*." + devDomain},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
}

// host makes the certificate of one tenant's host, because OpenSSL and Node.js do
// not believe a wildcard right below a top-level domain.
func (a *authority) host(tenant string) error {
	host := tenant + "." + devDomain
	_, _, err := a.leaf(filepath.Join(hostsFolder, host), &x509.Certificate{
		Subject: pkix.Name{Organization: []string{"Manor"}}, DNSNames: []string{host},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	return err
}

// node makes the certificate with which a node of that name shows itself on
// links.
func (a *authority) node(name string) (certFile, keyFile string, err error) {
	return a.leaf(name, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
}

// leaf makes a certificate for the key of that name. The key stays the same, so
// that whoever reads the files while they change finds a pair.
func (a *authority) leaf(name string, template *x509.Certificate) (certFile, keyFile string, err error) {
	key, err := a.keyOf(name)
	if err != nil {
		return "", "", err
	}
	if old, err := os.ReadFile(a.certFile(name)); err == nil && a.stillGood(old, template) {
		return a.certFile(name), a.keyFile(name), nil
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	der, err := a.sign(template, a.cert, &key.PublicKey, leafLife)
	if err != nil {
		return "", "", err
	}
	return a.certFile(name), a.keyFile(name), writePEM(a.certFile(name), "CERTIFICATE", der, 0o644)
}

// stillGood reports whether the certificate in text is this CA's, good for another
// month and for the same names as c.
func (a *authority) stillGood(text []byte, c *x509.Certificate) bool {
	block, _ := pem.Decode(text)
	if block == nil {
		return false
	}
	old, err := x509.ParseCertificate(block.Bytes)
	return err == nil && old.CheckSignatureFrom(a.cert) == nil && time.Until(old.NotAfter) > 30*24*time.Hour && slices.Equal(old.DNSNames, c.DNSNames)
}

func (a *authority) sign(template, parent *x509.Certificate, public *ecdsa.PublicKey, life time.Duration) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = time.Now().Add(life)
	return x509.CreateCertificate(rand.Reader, template, parent, public, a.key)
}

// writePEM replaces file in one step.
func writePEM(file, kind string, der []byte, mode fs.FileMode) error {
	tmp := file + ".new"
	if err := os.WriteFile(tmp, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode); err != nil {
		return err
	}
	return os.Rename(tmp, file)
}
