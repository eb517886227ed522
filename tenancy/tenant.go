// SPDX-License-Identifier: Apache-2.0

package tenancy

import (
	"time"
	"unicode/utf8"

	"github.com/manormq/manor/infra/errs"
)

// State is where a tenant is in its life.
type State string

// The states of a tenant.
const (
	// StateReserved is a tenant whose sign-up has not ended; after five
	// minutes the id is free again.
	StateReserved State = "reserved"
	// StateActive is the only state in which clients may connect.
	StateActive State = "active"
	// StateSuspended keeps everything and lets nobody in.
	StateSuspended State = "suspended"
	// StateDeleted is a tenant that can be restored for a while; then its data is removed.
	StateDeleted State = "deleted"
)

// Tenant is one MQTT world. A *Tenant that was handed out is shared: nobody
// changes it.
type Tenant struct {
	ID           string
	Organization string // the id of the organization that pays
	Region       string
	Plan         string // a name of the plan table
	// Partitions is among how many partitions its sessions are spread; 0 is all.
	Partitions int
	State      State
	// Reason is why it is suspended; empty if nobody has said it.
	Reason string
	// Hostname is where its clients connect, without a port.
	Hostname string
	// Limits are those in force: the plan's, with the overrides laid over.
	Limits Limits
	// Settings are those that were set; nil sets none. Rules gives those in force.
	Settings *SettingsOverride
	// ClientCAs are its own CAs of client certificates, or nil.
	ClientCAs *ClientCAs
	// AuthMethods are those that it has chosen; see Methods.
	AuthMethods []string
	// Issuers are those whose tokens it takes.
	Issuers []Issuer
	// Networks are those from which its clients may connect.
	Networks Networks
	// Registry says that it has, or had, devices in its registry.
	Registry bool
	// Flapping is when a client is banned that connects again and again; nil is
	// never.
	Flapping *Flapping
	// Policy is what there is of its own policy, or nil.
	Policy *PolicyRef
	// Grant is what the tenant itself may do, and its clients without a policy.
	Grant *Grant
	// Revision grows with every change of the tenant.
	Revision  uint64
	CreatedAt time.Time
}

// Active reports whether clients may connect.
func (t *Tenant) Active() bool { return t.State == StateActive }

// reservedIDs cannot be tenants because, as host names next to the tenants',
// they would look like the installation itself.
var reservedIDs = map[string]bool{
	"admin": true, "api": true, "auth": true, "billing": true, "broker": true, "console": true, "docs": true,
	"gateway": true, "localhost": true, "login": true, "mail": true, "manor": true, "mqtt": true, "mqtts": true,
	"nats": true, "operator": true, "status": true, "support": true, "system": true, "tenancy": true, "wss": true, "www": true,
}

// Lengths of a tenant id: the upper one is that of a DNS label (RFC 1035
// §2.3.4).
const (
	tenantIDMin = 3
	tenantIDMax = 63
)

// ValidTenantID checks that id can be a tenant: a lower case DNS label of 3 to
// 63 letters, digits and inner hyphens that is not reserved. The error is
// Invalid with Code "tenant_invalid" or "tenant_reserved".
func ValidTenantID(id string) error {
	const code = "tenant_invalid"
	if n := len(id); n < tenantIDMin || n > tenantIDMax {
		return errs.Coded(errs.Invalid, code, "a tenant id has %d to %d characters, this one has %d", tenantIDMin, tenantIDMax, n)
	}
	for i := range len(id) {
		switch c := id[i]; {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
		case c == '-':
			if i == 0 || i == len(id)-1 {
				return errs.Coded(errs.Invalid, code, "a tenant id begins and ends with a letter or a digit, not with a hyphen: %q", id)
			}
		case c >= 'A' && c <= 'Z':
			return errs.Coded(errs.Invalid, code, "a tenant id is lower case: %q", id)
		default:
			return errs.Coded(errs.Invalid, code, "a tenant id consists of a-z, 0-9 and hyphens: %q", id)
		}
	}
	// RFC 5891 §4.2.3.1: such labels have a meaning of their own in DNS.
	if id[2] == '-' && len(id) > 3 && id[3] == '-' {
		return errs.Coded(errs.Invalid, code, "a tenant id has no two hyphens as third and fourth character: %q", id)
	}
	if reservedIDs[id] {
		return errs.Coded(errs.Invalid, "tenant_reserved", "the tenant id %q is reserved", id)
	}
	return nil
}

// usernameMax is the longest credential name, in bytes: its base64 has to fit
// into a bucket key.
const usernameMax = 256

// ValidUsername checks the name of a credential: 1 to 256 bytes of UTF-8
// without control characters. The error is Invalid with Code
// "username_invalid".
func ValidUsername(name string) error {
	const code = "username_invalid"
	switch {
	case name == "":
		return errs.Coded(errs.Invalid, code, "a username has at least 1 character")
	case len(name) > usernameMax:
		return errs.Coded(errs.Invalid, code, "a username has at most %d bytes, this one has %d", usernameMax, len(name))
	case !utf8.ValidString(name):
		return errs.Coded(errs.Invalid, code, "a username is UTF-8")
	}
	for _, r := range name {
		if r < 0x20 || r >= 0x7F && r < 0xA0 {
			return errs.Coded(errs.Invalid, code, "a username has no control characters (found %U)", r)
		}
	}
	return nil
}

// organizationMax is the longest name of an organization, in characters.
const organizationMax = 128

// ValidOrganization checks the name of an organization: 1 to 128 characters
// without control characters. The error is Invalid with Code
// "organization_invalid".
func ValidOrganization(name string) error {
	const code = "organization_invalid"
	if n := utf8.RuneCountInString(name); n < 1 || n > organizationMax || !utf8.ValidString(name) {
		return errs.Coded(errs.Invalid, code, "the name of an organization has 1 to %d characters of UTF-8, this one has %d", organizationMax, n)
	}
	for _, r := range name {
		if r < 0x20 || r == 0x7F {
			return errs.Coded(errs.Invalid, code, "the name of an organization has no control characters (found %U)", r)
		}
	}
	return nil
}
