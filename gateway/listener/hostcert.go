// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"crypto/tls"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/manormq/manor/infra/errs"
)

// maxHosts is how many hosts' certificates are kept in memory; others are read
// when they are asked for.
const maxHosts = 4096

// hostCertificates are the certificates of a folder, by host name.
type hostCertificates struct {
	dir  string
	log  *slog.Logger
	kept *lru.Cache[string, *certificate]
}

func newHostCertificates(dir string, log *slog.Logger) (*hostCertificates, error) {
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		return nil, errs.New(errs.Invalid, "cert_dir: expected a folder with HOST.pem and HOST.key, found none at %s", dir)
	}
	kept, err := lru.New[string, *certificate](maxHosts)
	if err != nil {
		return nil, errs.New(errs.Internal, "cert_dir: %w", err)
	}
	return &hostCertificates{dir: dir, log: log, kept: kept}, nil
}

// get returns the certificate of a host, or nil if the folder has none. The host
// is one that the directory knows.
func (h *hostCertificates) get(host string, now time.Time) *tls.Certificate {
	host = strings.ToLower(host)
	if c, ok := h.kept.Get(host); ok {
		return c.get(now)
	}
	// Whatever the directory takes for a name, it must not lead out of the folder.
	if !filepath.IsLocal(host) || strings.ContainsAny(host, `/\`) {
		return nil
	}
	certFile, keyFile := filepath.Join(h.dir, host+".pem"), filepath.Join(h.dir, host+".key")
	if _, err := os.Stat(certFile); err != nil {
		return nil // the default certificate may be good for it
	}
	c, err := loadCertificate(certFile, keyFile, h.log)
	if err != nil {
		h.log.Error("the certificate of a host cannot be read; the default one is used", "host", host, "error", err)
		return nil
	}
	h.kept.Add(host, c)
	return c.get(now)
}
