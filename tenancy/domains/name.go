// SPDX-License-Identifier: Apache-2.0

package domains

import (
	"net/netip"
	"strings"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// Lengths of a name (RFC 1035 §2.3.4). What is put before it for the challenge has to fit
// too.
const (
	nameMax  = 253 - len("_manor-challenge.")
	labelMax = 63
)

// Normalize brings a name into the form in which it is compared: A-labels (RFC 5891),
// lower case, no dot at the end. The error is Invalid with Code "domain_invalid" if it
// cannot be a custom domain, or "domain_reserved" for a name of the installation's own
// domain. A wildcard is an asterisk for the whole of the first part, of a name that one
// registrant has (publicsuffix.org), such as *.devices.example.com.
func Normalize(name, own string) (string, error) {
	invalid := func(format string, args ...any) (string, error) {
		return "", errs.Coded(errs.Invalid, "domain_invalid", format, args...)
	}
	if len(name) > 4*nameMax {
		return invalid("a domain has at most %d characters", nameMax)
	}
	rest, wild := tenancy.WildcardOf(strings.TrimSpace(name))
	if strings.Contains(rest, "*") {
		return invalid("expected a host name such as mqtt.example.com, or a wildcard for its whole first part such as *.devices.example.com, found %q", name)
	}
	fqdn, err := idna.Lookup.ToASCII(strings.TrimSuffix(rest, "."))
	if err != nil {
		return invalid("expected a host name such as mqtt.example.com, found %q: %w", name, err)
	}
	if _, err := netip.ParseAddr(strings.Trim(fqdn, "[]")); err == nil {
		return invalid("expected a host name such as mqtt.example.com, found the address %q", name)
	}
	extra := 0
	if wild {
		extra = len("*.")
	}
	if n := len(fqdn) + extra; n > nameMax {
		return invalid("a domain has at most %d characters, this one has %d", nameMax, n)
	}
	labels := strings.Split(fqdn, ".")
	if len(labels) < 2 {
		return invalid("expected a name with a dot such as mqtt.example.com, found %q", name)
	}
	for _, l := range labels {
		if !validLabel(l) {
			return invalid("expected parts of 1 to %d letters, digits and inner hyphens, found %q in %q", labelMax, l, name)
		}
	}
	top := labels[len(labels)-1]
	if strings.Trim(top, "0123456789") == "" {
		return invalid("expected a name that ends with a top-level domain, found %q", name)
	}
	own = strings.ToLower(strings.Trim(own, "."))
	if top == "localhost" || fqdn == own || strings.HasSuffix(fqdn, "."+own) {
		return "", errs.Coded(errs.Invalid, "domain_reserved", "%s belongs to this installation: expected a domain of your own", fqdn)
	}
	if !wild {
		return fqdn, nil
	}
	if suffix, _ := publicsuffix.PublicSuffix(fqdn); suffix == fqdn {
		return invalid("expected a wildcard below a name of your own such as *.devices.example.com, found one below %q, under which anybody may have names (publicsuffix.org)", fqdn)
	}
	if _, above, _ := strings.Cut(own, "."); fqdn == above {
		return "", errs.Coded(errs.Invalid, "domain_reserved", "*.%s has names of this installation: expected a domain of your own", fqdn)
	}
	return "*." + fqdn, nil
}

func validLabel(l string) bool {
	if l == "" || len(l) > labelMax || l[0] == '-' || l[len(l)-1] == '-' {
		return false
	}
	for i := range len(l) {
		if c := l[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}
