// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// certify signs the certificate of a node again, for its address too. dir is
// manor dev's folder, which has the CA.
func certify(dir, name, host string) error {
	key, err := readPEM(filepath.Join(dir, "pki", "ca.key"))
	if err != nil {
		return err
	}
	signer, err := x509.ParseECPrivateKey(key)
	if err != nil {
		return err
	}
	ca, err := readCertificate(filepath.Join(dir, "ca.pem"))
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "pki", name+".pem")
	c, err := readCertificate(file)
	if err != nil {
		return err
	}
	c.IPAddresses = append(c.IPAddresses, net.ParseIP(host))
	der, err := x509.CreateCertificate(rand.Reader, c, ca, c.PublicKey, crypto.Signer(signer))
	if err != nil {
		return err
	}
	return os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600)
}

func readCertificate(file string) (*x509.Certificate, error) {
	der, err := readPEM(file)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func readPEM(file string) ([]byte, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s: expected PEM", file)
	}
	return block.Bytes, nil
}
