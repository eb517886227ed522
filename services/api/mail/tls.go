// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"crypto/tls"
	"crypto/x509"
	"os"

	"github.com/manormq/manor/infra/errs"
)

// clientTLS is how the server has to show who it is.
func clientTLS(host, ca string) (*tls.Config, error) {
	c := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if ca == "" {
		return c, nil
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, errs.New(errs.Invalid, "mail: ca: %w", err)
	}
	c.RootCAs = x509.NewCertPool()
	if !c.RootCAs.AppendCertsFromPEM(pem) {
		return nil, errs.New(errs.Invalid, "mail: ca: expected certificates in PEM in %s", ca)
	}
	return c, nil
}
