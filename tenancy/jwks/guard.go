// SPDX-License-Identifier: Apache-2.0

package jwks

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/authn/jwt"
)

// A tenant says from where its keys are fetched, and the control plane stands in a
// network of its own: what is not on the public internet must not be reached for
// somebody who only wants to know what is there (server-side request forgery).

// inside are networks that are not the internet, besides those that netip names
// (RFC 6890). IPv6 networks that carry IPv4 are all of them, since what is within
// could be anything.
var inside = tenancy.ParseNetworks([]string{
	"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
	"64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "fec0::/10", "3fff::/20", "5f00::/16",
})

// public reports whether an address is one of the internet.
func public(a netip.Addr) bool {
	a = a.Unmap()
	if !a.IsValid() || a.Zone() != "" || a.IsUnspecified() || a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast() || a.IsMulticast() {
		return false
	}
	for _, n := range inside {
		if n.Contains(a) {
			return false
		}
	}
	return a.Is4() || netip.MustParsePrefix("2000::/3").Contains(a)
}

// getter fetches key sets. It is safe for concurrent use.
type getter struct {
	// allowed are networks that may be reached though they are not public, also
	// without TLS.
	allowed tenancy.Networks
	client  *http.Client
}

const (
	fetchTime    = 5 * time.Second
	redirectsMax = 3
)

func newGetter(allowed tenancy.Networks) *getter {
	g := &getter{allowed: allowed}
	dialer := &net.Dialer{Timeout: fetchTime, Control: g.control}
	g.client = &http.Client{
		Timeout: fetchTime,
		Transport: &http.Transport{ // no proxy: it would look names up that we do not see
			DialContext: dialer.DialContext, TLSHandshakeTimeout: fetchTime, ResponseHeaderTimeout: fetchTime,
			MaxResponseHeaderBytes: 64 << 10, DisableKeepAlives: true, ForceAttemptHTTP2: true,
		},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) > redirectsMax {
				return errs.New(errs.Denied, "expected at most %d redirects", redirectsMax)
			}
			return g.mayAsk(r.URL)
		},
	}
	return g
}

// control looks at each address after its name was looked up, so that no name leads
// elsewhere the second time it is.
func (g *getter) control(_, address string, _ syscall.RawConn) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return errs.New(errs.Denied, "expected an address, found %q", address)
	}
	if public(a.Addr()) || len(g.allowed) > 0 && g.allowed.Allow(a.Addr()) {
		return nil
	}
	return errs.New(errs.Denied, "the address %s is not on the public internet; the operator can allow it (jwks_networks)", a.Addr())
}

// mayAsk holds that keys come over TLS, but from networks that the operator allows.
func (g *getter) mayAsk(u *url.URL) error {
	switch {
	case u.Scheme == "https":
		return nil
	case u.Scheme != "http" || len(g.allowed) == 0:
	default:
		if a, err := netip.ParseAddr(u.Hostname()); err == nil && g.allowed.Allow(a) {
			return nil
		}
	}
	return errs.New(errs.Denied, "expected an address that begins with https://")
}

// hiddenError is an error of the network, whose text would tell a tenant of the
// operator's: of names inside, their addresses and who looks them up.
type hiddenError struct{ err error }

// Error is what the tenant is shown.
func (e *hiddenError) Error() string {
	switch {
	case errs.Is(e.err, errs.Denied):
		return "the address is not on the public internet, or a redirect leads to one that may not be asked; the operator can allow networks (jwks_networks)"
	case errors.Is(e.err, context.DeadlineExceeded):
		return "no answer came in time"
	}
	return "the address cannot be reached, or does not speak TLS with a certificate that is trusted"
}

// Unwrap is for the log.
func (e *hiddenError) Unwrap() error { return e.err }

// ErrKind makes it Unavailable.
func (*hiddenError) ErrKind() errs.Kind { return errs.Unavailable }

// cause is err with what is for the log only.
func cause(err error) error {
	if h, ok := errors.AsType[*hiddenError](err); ok {
		return h.err
	}
	return err
}

// get fetches a key set. The error's text may be shown to the tenant: it has nothing
// of what was answered.
func (g *getter) get(ctx context.Context, address string) (jwks string, err error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", errs.New(errs.Invalid, "expected a URL")
	}
	if err := g.mayAsk(u); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return "", errs.New(errs.Invalid, "expected a URL")
	}
	r.Header.Set("Accept", "application/jwk-set+json, application/json")
	answer, err := g.client.Do(r)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok { // whose text has the URL once more
			err = e.Err
		}
		return "", &hiddenError{err}
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		return "", errs.New(errs.Unavailable, "expected the status 200, found %d", answer.StatusCode)
	}
	b, err := io.ReadAll(io.LimitReader(answer.Body, jwt.KeysMax+1))
	if err != nil {
		return "", errs.New(errs.Unavailable, "the answer broke off")
	}
	if len(b) > jwt.KeysMax {
		return "", errs.New(errs.Invalid, "expected at most %d bytes", jwt.KeysMax)
	}
	text := strings.TrimSpace(string(b))
	if _, err := jwt.CheckKeys(text); err != nil {
		return "", errs.New(errs.Invalid, "the answer is no key set that can be used")
	}
	return text, nil
}
