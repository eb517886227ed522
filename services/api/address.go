// SPDX-License-Identifier: Apache-2.0

package api

import (
	"net/http"
	"net/netip"
	"strings"

	"github.com/manormq/manor/infra/errs"
)

// proxies are the networks whose word about where a request comes from is
// believed.
type proxies []netip.Prefix

// ValidateProxies returns an error Invalid if Config.TrustedProxies cannot be
// that.
func ValidateProxies(all []string) error {
	_, err := parseProxies(all)
	return err
}

// parseProxies reads networks like 10.0.0.0/8 and addresses. The error is
// Invalid.
func parseProxies(all []string) (proxies, error) {
	var p proxies
	for _, text := range all {
		network, err := netip.ParsePrefix(text)
		if err != nil {
			one, err := netip.ParseAddr(text)
			if err != nil {
				return nil, errs.New(errs.Invalid, "trusted_proxies: expected networks like 10.0.0.0/8, found %q", text)
			}
			network = netip.PrefixFrom(one, one.BitLen())
		}
		p = append(p, network.Masked())
	}
	return p, nil
}

func (p proxies) trust(a netip.Addr) bool {
	for _, network := range p {
		if network.Contains(a) {
			return true
		}
	}
	return false
}

// address is the true address of a request: the peer's, or, if that is a trusted
// proxy, the last of X-Forwarded-For that is none. What a client writes there
// itself is left of what proxies add, and is not reached.
func (p proxies) address(r *http.Request) string {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	a := peer.Addr().Unmap().WithZone("")
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0 && p.trust(a); i-- {
		hop, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		a = hop.Unmap().WithZone("")
	}
	return a.String()
}
