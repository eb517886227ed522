// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"context"

	"github.com/pires/go-proxyproto"

	"github.com/manormq/manor/infra/errs"
)

// tenant applies the first three rules of tenant selection: a hostname, the
// PROXY authority, the listener's own. It reports whether the connection goes on. One
// of which the handshake could not say whose it is stays nobody's.
func (l *Listener) tenant(c *Conn, host string, proxy *proxyproto.Conn) bool {
	if c.Unavailable != nil {
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), l.opts.HandshakeTimeout)
	defer cancel()
	hosts := []string{host}
	if proxy != nil {
		if h := proxy.ProxyHeader(); h != nil {
			hosts = append(hosts, authority(h))
		}
	}
	for _, h := range hosts {
		if h == "" {
			continue
		}
		t, err := l.opts.Directory.TenantByHost(ctx, h)
		if err == nil {
			c.Tenant = t
			return true
		}
		switch {
		case errs.Is(err, errs.NotFound), errs.Is(err, errs.Invalid):
		case errs.Is(err, errs.Unavailable):
			c.Unavailable = err
			return true
		default:
			l.opts.Refused(l, "directory")
			l.log.Error("connection closed: it cannot be said whose the host is", "host", h, "error", err)
			return false
		}
	}
	if l.cfg.Tenant == "" {
		return true
	}
	t, err := l.opts.Directory.Tenant(ctx, l.cfg.Tenant)
	if errs.Is(err, errs.Unavailable) {
		c.Unavailable = err
		return true
	}
	if err != nil {
		l.opts.Refused(l, "directory")
		l.log.Error("connection closed: the listener's tenant is not known", "tenant", l.cfg.Tenant, "error", err)
		return false
	}
	c.Tenant = t
	return true
}

func authority(h *proxyproto.Header) string {
	tlvs, err := h.TLVs()
	if err != nil {
		return ""
	}
	for _, t := range tlvs {
		if t.Type == proxyproto.PP2_TYPE_AUTHORITY {
			return string(t.Value)
		}
	}
	return ""
}
