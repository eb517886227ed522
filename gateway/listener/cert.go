// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"crypto/tls"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/manormq/manor/infra/errs"
)

// certificate is a key pair on disk that is read again when a file has
// changed, which a handshake looks for at most once a second.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger
	current           atomic.Pointer[tls.Certificate]

	mu      sync.Mutex
	looked  time.Time
	version [2]fileVersion
}

type fileVersion struct {
	modified time.Time
	size     int64
}

const lookEvery = time.Second

func loadCertificate(certFile, keyFile string, log *slog.Logger) (*certificate, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, log: log}
	c.version = onDisk(certFile, keyFile)
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, errs.New(errs.Invalid, "expected a PEM certificate in %s and its key in %s: %w", certFile, keyFile, err)
	}
	c.current.Store(&pair)
	return c, nil
}

func onDisk(names ...string) (v [2]fileVersion) {
	for i, name := range names {
		if st, err := os.Stat(name); err == nil {
			v[i] = fileVersion{st.ModTime(), st.Size()}
		}
	}
	return v
}

// get returns the newest certificate that could be read.
func (c *certificate) get(now time.Time) *tls.Certificate {
	if c.mu.TryLock() {
		if now.Sub(c.looked) >= lookEvery {
			c.looked = now
			if v := onDisk(c.certFile, c.keyFile); v != c.version {
				pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
				if err != nil {
					// Files are seldom replaced together; the next look may find both.
					c.log.Error("certificate has changed and cannot be read; the old one stays", "file", c.certFile, "error", err)
				} else {
					c.version = v
					c.current.Store(&pair)
					c.log.Info("certificate was read again", "file", c.certFile, "until", pair.Leaf.NotAfter)
				}
			}
		}
		c.mu.Unlock()
	}
	return c.current.Load()
}

// namesNobody reports whether a server name says nothing about the tenant: an
// address, which RFC 6066 §3 does not allow there and clients send all the same,
// or a name that all tenants have in common: the domain's, or localhost.
func (l *Listener) namesNobody(host string) bool {
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return true
	}
	return host == "" || strings.EqualFold(host, "localhost") || l.opts.Domain != "" && strings.EqualFold(host, strings.Trim(l.opts.Domain, "."))
}

// certificateOf is what is shown to who names a tenant's host, or nobody's.
func (l *Listener) certificateOf(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	now := time.Now()
	if h := l.custom(hello.ServerName); h != nil && h.Active() {
		pair, err := h.Certificate()
		if err != nil {
			l.log.Error("the certificate of a custom domain cannot be used", "host", h.Host().FQDN, "tenant", h.Host().Tenant, "error", err)
		}
		return pair, err
	}
	if l.hosts != nil && !l.namesNobody(hello.ServerName) {
		if pair := l.hosts.get(hello.ServerName, now); pair != nil {
			return pair, nil
		}
	}
	return l.cert.get(now), nil
}

func (l *Listener) nextProtos() []string {
	if l.cfg.WebSocket() {
		return []string{"http/1.1"}
	}
	return nil // clients of brokers elsewhere offer all kinds of names; none is needed
}
