// SPDX-License-Identifier: Apache-2.0

package tenancy

import (
	"encoding/json"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/manormq/manor/infra/errs"
)

// DevicesBucket maps a DeviceKey to a Device in JSON. Gateways read it.
const DevicesBucket = "devices"

// Device is what a tenant's registry says of the client of that user name, however it
// shows who it is. It is a plain value; nobody changes the map and the slice.
type Device struct {
	Tenant string `json:"tenant"`
	// Name is the user name.
	Name       string            `json:"name"`
	Attributes map[string]string `json:"attributes,omitempty"`
	// Groups are in order.
	Groups    []string  `json:"groups,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
	// Revision is the bucket's; it is not part of the value.
	Revision uint64 `json:"-"`
}

// Bounds of a device.
const (
	deviceAttributesMax = 32
	deviceGroupsMax     = 32
	deviceWordMax       = 64  // bytes of the name of an attribute or a group
	deviceValueMax      = 256 // bytes
)

// DeviceKey is the key of a device, made as a CredentialKey is.
func DeviceKey(tenant, name string) string { return CredentialKey(tenant, name) }

// DecodeDevice reads the value of a key in DevicesBucket.
func DecodeDevice(value []byte, revision uint64) (*Device, error) {
	d := &Device{Revision: revision}
	if err := json.Unmarshal(value, d); err != nil {
		return nil, errs.New(errs.Internal, "stored device: %w", err)
	}
	return d, nil
}

// Normalize checks the name, the attributes and the groups, and puts the groups in
// order. The error is Invalid with Code "device_invalid".
func (d *Device) Normalize() error {
	invalid := func(format string, args ...any) error {
		return errs.Coded(errs.Invalid, "device_invalid", format, args...)
	}
	if err := ValidUsername(d.Name); err != nil {
		return invalid("name: %w", err)
	}
	if len(d.Attributes) > deviceAttributesMax || len(d.Groups) > deviceGroupsMax {
		return invalid("expected at most %d attributes and %d groups, found %d and %d", deviceAttributesMax, deviceGroupsMax, len(d.Attributes), len(d.Groups))
	}
	for name, v := range d.Attributes {
		if !deviceWord(name) {
			return invalid("expected attributes with names of 1 to %d letters, digits, '-', '_' and '.', found %.80q", deviceWordMax, name)
		}
		if len(v) > deviceValueMax || !utf8.ValidString(v) {
			return invalid("attribute %s: expected at most %d bytes of UTF-8", name, deviceValueMax)
		}
	}
	groups := slices.Clone(d.Groups)
	slices.Sort(groups)
	for n, g := range groups {
		if !deviceWord(g) {
			return invalid("expected groups with names of 1 to %d letters, digits, '-', '_' and '.', found %.80q", deviceWordMax, g)
		}
		if n > 0 && groups[n-1] == g {
			return invalid("the group %s is there twice", g)
		}
	}
	d.Groups = groups
	return nil
}

func deviceWord(s string) bool {
	if s == "" || len(s) > deviceWordMax {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.':
		default:
			return false
		}
	}
	return true
}
