// SPDX-License-Identifier: Apache-2.0

package tenancy

import (
	"net/netip"

	"github.com/manormq/manor/infra/errs"
)

// AllowList is from where a tenant may be reached: networks such as 10.0.0.0/8, and
// addresses. A list that is empty allows every address. It is a plain value.
type AllowList struct {
	// MQTT holds for clients, API for requests about the tenant.
	MQTT []string `json:"mqtt,omitempty" maxItems:"500" doc:"From where clients may connect; PROXY protocol says where that is behind a load balancer."`
	API  []string `json:"api,omitempty" maxItems:"500" doc:"From where requests about the tenant may come."`
}

// networksMax is how many networks one list may have.
const networksMax = 500

// Valid checks the lists. The error is Invalid with Code "allow_list_invalid".
func (l *AllowList) Valid() error {
	if l == nil {
		return nil
	}
	for _, list := range []struct {
		name string
		all  []string
	}{{"mqtt", l.MQTT}, {"api", l.API}} {
		if len(list.all) > networksMax {
			return errs.Coded(errs.Invalid, "allow_list_invalid", "%s: expected at most %d networks, found %d", list.name, networksMax, len(list.all))
		}
		for _, text := range list.all {
			if _, err := ParseNetwork(text); err != nil {
				return errs.Coded(errs.Invalid, "allow_list_invalid", "%s: %w", list.name, err)
			}
		}
	}
	return nil
}

// ParseNetwork reads a network like 10.0.0.0/8 or an address. IPv4 in IPv6 is IPv4.
// The error is Invalid.
func ParseNetwork(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil || p.Addr().Is4In6() {
		return p, errs.New(errs.Invalid, "expected an address, or a network like 10.0.0.0/8, found %.60q", text)
	}
	return p.Masked(), nil
}

// networkText is the normal form of a network.
func networkText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// Networks are networks of an AllowList, made to be looked up; none is every
// address. They are not to be changed.
type Networks []netip.Prefix

// ParseNetworks reads them; what is none is left out, since a newer version may have
// written it.
func ParseNetworks(all []string) (n Networks) {
	for _, text := range all {
		if p, err := ParseNetwork(text); err == nil {
			n = append(n, p)
		}
	}
	return n
}

// Allow reports whether the address is in one of them, or there is none.
func (n Networks) Allow(a netip.Addr) bool {
	if len(n) == 0 {
		return true
	}
	a = a.Unmap().WithZone("")
	for _, p := range n {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
