// SPDX-License-Identifier: Apache-2.0

package store

import (
	"slices"

	"github.com/manormq/manor/tenancy"
)

// AuthMethods is a change of a tenant for ChangeTenant: other methods, or another
// order of them.
func AuthMethods(methods []string) func(*tenancy.TenantRecord) error {
	return func(r *tenancy.TenantRecord) error {
		if err := tenancy.ValidAuthMethods(methods); err != nil {
			return err
		}
		r.AuthMethods = slices.Clone(methods)
		return nil
	}
}

// Issuers is a change of a tenant for ChangeTenant: other issuers of tokens. Whoever
// calls it has read their keys.
func Issuers(issuers []tenancy.Issuer) func(*tenancy.TenantRecord) error {
	return func(r *tenancy.TenantRecord) error {
		if err := tenancy.ValidIssuers(issuers); err != nil {
			return err
		}
		r.Issuers = slices.Clone(issuers)
		return nil
	}
}

// AllowList is a change of a tenant for ChangeTenant: from where it may be reached;
// nil is from everywhere.
func AllowList(l *tenancy.AllowList) func(*tenancy.TenantRecord) error {
	return func(r *tenancy.TenantRecord) error {
		if err := l.Valid(); err != nil {
			return err
		}
		if r.AllowList = l; l != nil && len(l.MQTT)+len(l.API) == 0 {
			r.AllowList = nil
		}
		return nil
	}
}

// Flapping is a change of a tenant for ChangeTenant: when a client is banned that
// connects again and again; nil is never.
func Flapping(f *tenancy.Flapping) func(*tenancy.TenantRecord) error {
	return func(r *tenancy.TenantRecord) error {
		if err := f.Valid(); err != nil {
			return err
		}
		r.Flapping = f
		return nil
	}
}
