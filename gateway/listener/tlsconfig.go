// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// maxConfigs is how many tenants' TLS configurations a listener keeps; others are
// made when they are asked for.
const maxConfigs = 1024

// tlsConfig is how TLS is spoken with the clients of one tenant, or with those
// that name none. It is immutable.
type tlsConfig struct {
	tenant string             // empty is none
	own    *tenancy.ClientCAs // the tenant's; nil if it has none
	trust  *tenancy.Trust     // of what clients are asked for; nil if nothing
	// secrets are what the keys of tickets are derived from.
	secrets *tenancy.TicketSecrets
	tls     *tls.Config
}

// same reports whether c is still what newConfig would make. The tenant is c's.
func (c *tlsConfig) same(t *tenancy.Tenant, files *tenancy.Trust, secrets *tenancy.TicketSecrets) bool {
	switch {
	case c.secrets != secrets:
		return false
	case t != nil && t.ClientCAs != nil:
		return c.own != nil && c.own.Revision == t.ClientCAs.Revision
	}
	return c.own == nil && c.trust == files
}

// handshakeKey is where the context of a handshake has its *negotiated.
type handshakeKey struct{}

// negotiated is what a handshake has come to.
type negotiated struct {
	config *tlsConfig
	// unavailable is why it could not be said whose the client's server name is.
	unavailable error
}

// negotiatedOf is that of the handshake of ctx; nil if nobody waits for it.
func negotiatedOf(ctx context.Context) *negotiated {
	n, _ := ctx.Value(handshakeKey{}).(*negotiated)
	return n
}

func handshakeContext(ctx context.Context) (context.Context, *negotiated) {
	n := &negotiated{}
	return context.WithValue(ctx, handshakeKey{}, n), n
}

// baseConfig chooses a configuration by the server name that a client sends. What
// it has itself is for who sends the name of a host that is no tenant's: no
// certificate, upon which crypto/tls sends unrecognized_name (RFC 6066 §3), and
// no tickets, with which it would ask for no certificate.
func (l *Listener) baseConfig() *tls.Config {
	return &tls.Config{
		MinVersion:             l.cfg.minVersion(),
		NextProtos:             l.nextProtos(),
		SessionTicketsDisabled: true,
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil },
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if challenges(hello) {
				return l.challengeConfig(hello)
			}
			t, known, err := l.named(hello)
			if err != nil || !known {
				return nil, err
			}
			config, err := l.configFor(t, time.Now())
			if err != nil {
				l.opts.Refused(l, "tls_config")
				l.log.Error("TLS handshake refused: there is no configuration for the tenant", "server_name", hello.ServerName, "error", err)
				return nil, err
			}
			if n := negotiatedOf(hello.Context()); n != nil {
				n.config = config
			}
			if err := l.begin(hello, config.tenant); err != nil {
				return nil, err
			}
			return config.tls, nil
		},
	}
}

// begin waits for the turn of a tenant's handshake.
func (l *Listener) begin(hello *tls.ClientHelloInfo, tenant string) error {
	err := l.opts.Computing.begin(hello.Context(), hello.Conn, tenant, l.opts.HandshakeTimeout)
	if errors.Is(err, errComputing) {
		l.opts.Refused(l, "tls_overload")
	}
	return err
}

// named is the tenant that a client names by its host; nil if it names nobody's, or if
// it cannot be said now whose it is: then the handshake goes on, so that the answer to
// CONNECT can say why nobody is let in, and whoever negotiates hears of it: also if it
// can be said by then, the client was not asked for what the tenant wants. A name that is not known was counted.
func (l *Listener) named(hello *tls.ClientHelloInfo) (t *tenancy.Tenant, known bool, err error) {
	if l.namesNobody(hello.ServerName) {
		return nil, true, nil
	}
	ctx, cancel := context.WithTimeout(hello.Context(), l.opts.HandshakeTimeout)
	defer cancel()
	t, err = l.opts.Directory.TenantByHost(ctx, hello.ServerName)
	switch {
	case err == nil:
		return t, true, nil
	case errs.Is(err, errs.NotFound), errs.Is(err, errs.Invalid):
		l.opts.Refused(l, "unknown_sni")
		l.log.Debug("TLS handshake refused: the server name is no tenant's", "server_name", hello.ServerName, "peer", hello.Conn.RemoteAddr().String())
		return nil, false, nil
	case errs.Is(err, errs.Unavailable):
		if n := negotiatedOf(hello.Context()); n != nil {
			n.unavailable = err
		}
		return nil, true, nil
	}
	l.opts.Refused(l, "directory")
	l.log.Error("TLS handshake refused: it cannot be said whose the server name is", "server_name", hello.ServerName, "error", err)
	return nil, false, err
}

// configFor returns the configuration for a tenant's clients, or with nil for
// those that name none. It is made again when what it was made of has changed.
func (l *Listener) configFor(t *tenancy.Tenant, now time.Time) (*tlsConfig, error) {
	var files *tenancy.Trust
	if l.clients != nil {
		files = l.clients.get(now)
	}
	id := ""
	if t != nil {
		id = t.ID
	}
	secrets := l.tickets.get(now)
	if c, ok := l.configs.Get(id); ok && c.same(t, files, secrets) {
		return c, nil
	}
	c, err := l.newConfig(t, files, secrets)
	if err == nil {
		l.configs.Add(id, c)
	}
	return c, err
}

func (l *Listener) newConfig(t *tenancy.Tenant, files *tenancy.Trust, secrets *tenancy.TicketSecrets) (*tlsConfig, error) {
	c := &tlsConfig{trust: files, secrets: secrets, tls: &tls.Config{
		MinVersion:                  l.cfg.minVersion(),
		NextProtos:                  l.nextProtos(),
		GetCertificate:              l.certificateOf,
		DynamicRecordSizingDisabled: true, // records of 1 KiB would each be a write
	}}
	required := l.cfg.ClientCerts == tenancy.ClientCertsRequired
	if t != nil {
		c.tenant = t.ID
		if c.own = t.ClientCAs; c.own != nil {
			var err error
			if c.trust, err = c.own.Trust(); err != nil {
				return nil, err
			}
			required = required || c.own.ClientCerts == tenancy.ClientCertsRequired
		}
	}
	if trust := c.trust; trust != nil {
		// Verified by ourselves: of resumed sessions too, whose tickets are older than
		// what is revoked.
		c.tls.ClientAuth = tls.RequestClientCert
		if required {
			c.tls.ClientAuth = tls.RequireAnyClientCert
		}
		c.tls.ClientCAs = trust.Pool() // what clients are told
		c.tls.VerifyConnection = func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) == 0 {
				return nil
			}
			return trust.Verify(cs.PeerCertificates, time.Now())
		}
	}
	keys, err := secrets.Keys(c.purpose())
	if err != nil {
		return nil, err
	}
	c.tls.SetSessionTicketKeys(keys)
	return c, nil
}

// purpose is what its tickets are for. They open nothing for another tenant, nor
// for the same one once its CAs or revocation lists are others. Clients of the
// same tenant may come back on another listener, or gateway, with the same CAs.
func (c *tlsConfig) purpose() string {
	switch {
	case c.own != nil:
		return fmt.Sprintf("tenant %q client CAs %d", c.tenant, c.own.Revision)
	case c.trust != nil:
		return fmt.Sprintf("tenant %q listener's CAs %x", c.tenant, c.trust.Sum())
	}
	return fmt.Sprintf("tenant %q", c.tenant)
}

// tickets are the secrets of a listener's session tickets. It is safe for
// concurrent use.
type tickets struct {
	// shared are those of all gateways; nil, or a nil answer, is none.
	shared func() *tenancy.TicketSecrets

	mu  sync.Mutex
	own *tenancy.TicketSecrets // guarded by mu
}

// get returns those that all gateways have, or our own while there are none, or
// nobody renews them.
func (t *tickets) get(now time.Time) *tenancy.TicketSecrets {
	if t.shared != nil {
		if s := t.shared(); !s.Stale(now) {
			return s
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.own.Due(now) {
		var secret [32]byte
		_, _ = rand.Read(secret[:]) // never fails
		t.own = t.own.With(secret, now)
	}
	return t.own
}
