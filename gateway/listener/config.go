// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"crypto/tls"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/tenancy"
)

// The kinds of listener.
const (
	MQTT  = "mqtt"
	MQTTS = "mqtts"
	WS    = "ws"
	WSS   = "wss"
)

// Config is one listener in a gateway's configuration.
type Config struct {
	Name           string   `yaml:"name" doc:"name in logs, metrics and labels; unique; empty is kind and address"`
	Kind           string   `yaml:"kind" doc:"mqtt, mqtts, ws or wss"`
	Address        string   `yaml:"address" doc:"host:port to bind; port 0 takes a free one"`
	Tenant         string   `yaml:"tenant" doc:"id of the tenant that every connection belongs to, unless SNI, Host or PROXY name another; empty is none"`
	MaxConnections int      `yaml:"max_connections" doc:"connections at a time; more are closed when they come; 0 is no limit"`
	Versions       []string `yaml:"versions" doc:"protocol versions that are let in, of 3.1, 3.1.1 and 5; empty is all"`
	ProxyProtocol  bool     `yaml:"proxy_protocol" doc:"every connection begins with a PROXY protocol header, version 1 or 2"`
	TrustedProxies []string `yaml:"trusted_proxies" doc:"networks whose PROXY headers and X-Forwarded-For are believed; empty believes any PROXY header and no X-Forwarded-For"`
	CertFile       string   `yaml:"cert_file" doc:"PEM file with the certificate chain (mqtts, wss); read again when it changes"`
	KeyFile        string   `yaml:"key_file" doc:"PEM file with the private key"`
	MinTLS         string   `yaml:"tls_min" doc:"oldest version of TLS, 1.2 or 1.3; empty is 1.2"`
	ClientCerts    string   `yaml:"client_certs" doc:"certificates of clients: optional, required, or empty for none. VerneMQ: require_certificate"`
	ClientCAFile   string   `yaml:"client_ca_file" doc:"PEM file with the CAs of client certificates; read again when it changes; a tenant's own take their place where SNI names it. VerneMQ: cafile"`
	ClientCRLFile  string   `yaml:"client_crl_file" doc:"PEM file with revocation lists of those CAs; read again when it changes; empty is none. VerneMQ: crlfile"`
	Identity       string   `yaml:"use_identity_as_username" doc:"what of a client certificate is the user name, which then needs no password, in the listener's tenant: cn, san (the first URI, DNS name or e-mail address), or empty for nothing"`
	CertDir        string   `yaml:"cert_dir" doc:"folder with HOST.pem and HOST.key, used for that SNI instead of cert_file; read again when they change; empty is none"`
}

// TLS reports whether the kind is one with TLS.
func (c *Config) TLS() bool { return c.Kind == MQTTS || c.Kind == WSS }

// WebSocket reports whether the kind is one with WebSocket.
func (c *Config) WebSocket() bool { return c.Kind == WS || c.Kind == WSS }

// Label is the listener's name in logs and metrics.
func (c *Config) Label() string {
	if c.Name != "" {
		return c.Name
	}
	return c.Kind + "://" + c.Address
}

// Validate says what is wrong and what was expected. The error is Invalid.
func (c *Config) Validate() error {
	if !slices.Contains([]string{MQTT, MQTTS, WS, WSS}, c.Kind) {
		return errs.New(errs.Invalid, "listener %s: kind: expected mqtt, mqtts, ws or wss, found %q", c.Label(), c.Kind)
	}
	if c.Name == link.ListenerAPI {
		return errs.New(errs.Invalid, "listener %s: name: expected another one, this is what the API's own connections are labelled with", c.Label())
	}
	if _, _, err := net.SplitHostPort(c.Address); err != nil {
		return errs.New(errs.Invalid, "listener %s: address: expected host:port, found %q", c.Label(), c.Address)
	}
	if c.TLS() != (c.CertFile != "") || c.TLS() != (c.KeyFile != "") {
		return errs.New(errs.Invalid, "listener %s: expected cert_file and key_file with mqtts and wss, and only there", c.Label())
	}
	if c.CertDir != "" && !c.TLS() {
		return errs.New(errs.Invalid, "listener %s: expected cert_dir with mqtts and wss only", c.Label())
	}
	if err := c.validateTLS(); err != nil {
		return err
	}
	if c.MaxConnections < 0 {
		return errs.New(errs.Invalid, "listener %s: max_connections: expected 0 or more, found %d", c.Label(), c.MaxConnections)
	}
	for _, v := range c.Versions {
		if !slices.Contains([]string{"3.1", "3.1.1", "5"}, v) {
			return errs.New(errs.Invalid, "listener %s: versions: expected 3.1, 3.1.1 or 5, found %q", c.Label(), v)
		}
	}
	_, err := c.trusted()
	return err
}

func (c *Config) validateTLS() error {
	for name, set := range map[string]bool{
		"tls_min": c.MinTLS != "", "client_certs": c.ClientCerts != "", "client_ca_file": c.ClientCAFile != "",
		"client_crl_file": c.ClientCRLFile != "", "use_identity_as_username": c.Identity != "",
	} {
		if set && !c.TLS() {
			return errs.New(errs.Invalid, "listener %s: expected %s with mqtts and wss only", c.Label(), name)
		}
	}
	switch {
	case !slices.Contains([]string{"", "1.2", "1.3"}, c.MinTLS):
		return errs.New(errs.Invalid, "listener %s: tls_min: expected 1.2 or 1.3, found %q", c.Label(), c.MinTLS)
	case !slices.Contains([]string{"", tenancy.ClientCertsOptional, tenancy.ClientCertsRequired}, c.ClientCerts):
		return errs.New(errs.Invalid, "listener %s: client_certs: expected optional or required, found %q", c.Label(), c.ClientCerts)
	case !slices.Contains([]string{"", tenancy.IdentityCN, tenancy.IdentitySAN}, c.Identity):
		return errs.New(errs.Invalid, "listener %s: use_identity_as_username: expected cn or san, found %q", c.Label(), c.Identity)
	case (c.ClientCerts != "") != (c.ClientCAFile != ""):
		return errs.New(errs.Invalid, "listener %s: expected client_certs and client_ca_file together", c.Label())
	case c.ClientCerts == "" && (c.ClientCRLFile != "" || c.Identity != ""):
		return errs.New(errs.Invalid, "listener %s: expected client_certs with client_crl_file and use_identity_as_username", c.Label())
	case c.Identity != "" && c.Tenant == "":
		// Whoever has a certificate of these CAs would be let into every tenant.
		return errs.New(errs.Invalid, "listener %s: expected tenant with use_identity_as_username: the one whose clients the CAs name", c.Label())
	}
	return nil
}

func (c *Config) minVersion() uint16 {
	if c.MinTLS == "1.3" {
		return tls.VersionTLS13
	}
	return tls.VersionTLS12
}

func (c *Config) trusted() ([]netip.Prefix, error) {
	var nets []netip.Prefix
	for _, s := range c.TrustedProxies {
		if !strings.Contains(s, "/") {
			if a, err := netip.ParseAddr(s); err == nil {
				nets = append(nets, netip.PrefixFrom(a, a.BitLen()))
				continue
			}
		}
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, errs.New(errs.Invalid, "listener %s: trusted_proxies: expected an address or a network like 10.0.0.0/8, found %q", c.Label(), s)
		}
		nets = append(nets, p.Masked())
	}
	return nets, nil
}

func contains(nets []netip.Prefix, a netip.Addr) bool {
	a = a.Unmap()
	for _, n := range nets {
		if n.Contains(a) {
			return true
		}
	}
	return false
}

// forwardedFor returns the right-most address of the X-Forwarded-For values
// that is not trusted: what is left of it, the client may have written itself.
func forwardedFor(values []string, trusted []netip.Prefix) (netip.Addr, bool) {
	parts := strings.Split(strings.Join(values, ","), ",")
	for _, p := range slices.Backward(parts) {
		p = strings.TrimSpace(p)
		a, err := netip.ParseAddr(strings.Trim(p, "[]"))
		if err != nil {
			ap, err := netip.ParseAddrPort(p)
			if err != nil {
				return netip.Addr{}, false
			}
			a = ap.Addr()
		}
		if !contains(trusted, a) {
			return a.Unmap(), true
		}
	}
	return netip.Addr{}, false
}
