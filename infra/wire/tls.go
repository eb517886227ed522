// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"sync"
	"time"
)

// TLS reads a node's certificate and key and the region's CA from PEM files,
// and returns a configuration for both ends of a link: each end shows its
// certificate and checks the other's against that CA and no other. A certificate file that
// is replaced counts from the next connection on.
func TLS(certFile, keyFile, caFile string) (*tls.Config, error) {
	pair := &keyPair{certFile: certFile, keyFile: keyFile}
	if _, err := pair.get(); err != nil {
		return nil, fmt.Errorf("load node certificate: %w", err)
	}
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("load region CA: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("load region CA: %s has no certificate in PEM", caFile)
	}
	return &tls.Config{
		MinVersion:           tls.VersionTLS13,
		GetCertificate:       func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return pair.get() },
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair.get() },
		RootCAs:              pool,
		ClientCAs:            pool,
		ClientAuth:           tls.RequireAndVerifyClientCert,
	}, nil
}

// keyPair is a certificate with its key, read again when the certificate's file is another.
type keyPair struct {
	certFile, keyFile string

	mu   sync.Mutex
	cert *tls.Certificate // guarded by mu
	seen time.Time        // guarded by mu: the file's, when it was read
}

// get returns the certificate in the files; the last one that could be read, if they
// cannot be now.
func (p *keyPair) get() (*tls.Certificate, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	info, err := os.Stat(p.certFile)
	if err == nil && (p.cert == nil || !info.ModTime().Equal(p.seen)) {
		var cert tls.Certificate
		if cert, err = tls.LoadX509KeyPair(p.certFile, p.keyFile); err == nil {
			p.cert, p.seen = &cert, info.ModTime()
		}
	}
	if p.cert != nil {
		return p.cert, nil
	}
	return nil, err
}

// Pipe returns the two ends of a connection in memory, without TLS. It is for
// tests; it works in a synctest bubble.
func Pipe() (net.Conn, net.Conn) { return net.Pipe() }
