// SPDX-License-Identifier: Apache-2.0

package domains

import (
	"net/netip"
	"strings"

	"golang.org/x/net/idna"

	"github.com/manormq/manor/infra/errs"
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
// domain.
func Normalize(name, own string) (string, error) {
	invalid := func(format string, args ...any) (string, error) {
		return "", errs.Coded(errs.Invalid, "domain_invalid", format, args...)
	}
	if len(name) > 4*nameMax {
		return invalid("a domain has at most %d characters", nameMax)
	}
	if strings.Contains(name, "*") {
		return invalid("expected one host name such as mqtt.example.com, found the wildcard %q", name)
	}
	fqdn, err := idna.Lookup.ToASCII(strings.TrimSuffix(strings.TrimSpace(name), "."))
	if err != nil {
		return invalid("expected a host name such as mqtt.example.com, found %q: %w", name, err)
	}
	if _, err := netip.ParseAddr(strings.Trim(fqdn, "[]")); err == nil {
		return invalid("expected a host name such as mqtt.example.com, found the address %q", name)
	}
	if len(fqdn) > nameMax {
		return invalid("a domain has at most %d characters, this one has %d", nameMax, len(fqdn))
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
	return fqdn, nil
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
