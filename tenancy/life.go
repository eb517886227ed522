// SPDX-License-Identifier: Apache-2.0

package tenancy

import (
	"time"
	"unicode/utf8"

	"github.com/manormq/manor/infra/errs"
)

// DefaultDeletionGrace is for how long a deleted tenant is kept, and can be restored, if the
// installation does not say otherwise.
const DefaultDeletionGrace = 7 * 24 * time.Hour

// Life is what there is to say of a tenant's State: why it has it, since when, and for how
// long. A *Life is never changed, but replaced.
type Life struct {
	// Reason is why the tenant is suspended, as its clients and the API are told.
	Reason string `json:"reason,omitempty"`
	// By is ByOperator of a tenant that the operator of the installation has suspended, which its
	// owners cannot resume; else it is empty.
	By string `json:"by,omitempty"`
	// Since is when the State began.
	Since time.Time `json:"since,omitzero"`
	// Before is the State that a deleted tenant had, and Held and HeldBy are its Reason and By
	// then: it has them again when it is restored.
	Before State  `json:"before,omitempty"`
	Held   string `json:"held,omitempty"`
	HeldBy string `json:"held_by,omitempty"`
	// PurgeAt is when all that a deleted tenant has is removed.
	PurgeAt time.Time `json:"purge_at,omitzero"`
	// Purging says that the removal has begun: there is no way back.
	Purging bool `json:"purging,omitempty"`
}

// ByOperator is the operator of the installation, and ByOwner who may in the tenant's organization.
const (
	ByOperator = "operator"
	ByOwner    = ""
)

// Bounds of what people say of a tenant, in characters.
const (
	reasonMax      = 200
	displayNameMax = 128
)

// ValidReason checks why a tenant is suspended: up to 200 characters of UTF-8 without control
// characters. The error is Invalid with Code "reason_invalid".
func ValidReason(reason string) error {
	return validLine(reason, "reason_invalid", "a reason", reasonMax)
}

// ValidDisplayName checks the name of a tenant for people: up to 128 characters of UTF-8
// without control characters. The error is Invalid with Code "display_name_invalid".
func ValidDisplayName(name string) error {
	return validLine(name, "display_name_invalid", "a display name", displayNameMax)
}

func validLine(s, code, what string, most int) error {
	if n := utf8.RuneCountInString(s); n > most || !utf8.ValidString(s) {
		return errs.Coded(errs.Invalid, code, "%s has up to %d characters of UTF-8, this one has %d", what, most, n)
	}
	for _, r := range s {
		if r < 0x20 || r >= 0x7F && r < 0xA0 {
			return errs.Coded(errs.Invalid, code, "%s has no control characters (found %U)", what, r)
		}
	}
	return nil
}

// Inactive is why no client of the tenant may connect, as an error Denied with
// CodeTenantInactive; nil of one that is active. Its text is for who has shown that it belongs
// to the tenant.
func (t *Tenant) Inactive() error {
	switch {
	case t.Active():
		return nil
	case t.Reason != "":
		return errs.Coded(errs.Denied, CodeTenantInactive, "the tenant is %s: %s", t.State, t.Reason)
	}
	return errs.Coded(errs.Denied, CodeTenantInactive, "the tenant is %s", t.State)
}

// Suspend is a change of a tenant by somebody: nobody is let in any more, and everything is kept.
// One that is suspended gets the other reason. The error is Conflict with Code "tenant_deleted" or,
// for its owners where the operator has suspended it, "suspended_by_operator".
func (r *TenantRecord) Suspend(by, reason string, now time.Time) error {
	switch r.State {
	case StateActive:
		r.Life = &Life{Reason: reason, By: by, Since: now.UTC()}
	case StateSuspended:
		if err := r.heldFrom(by); err != nil {
			return err
		}
		since := now.UTC()
		if r.Life != nil && !r.Life.Since.IsZero() {
			since = r.Life.Since
		}
		r.Life = &Life{Reason: reason, By: by, Since: since}
	case StateReserved, StateDeleted:
		return r.notNow("suspended")
	}
	r.State = StateSuspended
	return nil
}

// heldFrom is the error of who may not change that a tenant is suspended.
func (r *TenantRecord) heldFrom(by string) error {
	if r.Life == nil || r.Life.By != ByOperator || by == ByOperator {
		return nil
	}
	return errs.Coded(errs.Conflict, "suspended_by_operator", "the operator of this installation has suspended the tenant %s (%s), and resumes it: ask there", r.ID, r.Life.Reason)
}

// Resume is a change of a tenant by somebody: one that is suspended is active again. One that is
// active stays as it is. The error is as of Suspend.
func (r *TenantRecord) Resume(by string, now time.Time) error {
	switch r.State {
	case StateActive:
		return nil
	case StateSuspended:
		if err := r.heldFrom(by); err != nil {
			return err
		}
		r.State, r.Life = StateActive, &Life{Since: now.UTC()}
		return nil
	case StateReserved, StateDeleted:
	}
	return r.notNow("resumed")
}

// Delete is a change of a tenant: it is as if it were not there, and after the grace all that it
// has is removed. The error is Conflict with Code "tenant_protected" or "tenant_deleted".
func (r *TenantRecord) Delete(now time.Time, grace time.Duration) error {
	switch {
	case r.State == StateReserved || r.State == StateDeleted:
		return r.notNow("deleted again")
	case r.DeletionProtection:
		return errs.Coded(errs.Conflict, "tenant_protected", "the tenant %s is protected from being deleted: set deletion_protection to false first", r.ID)
	}
	life := &Life{Since: now.UTC(), Before: r.State, PurgeAt: now.Add(grace).UTC()}
	if r.Life != nil {
		life.Held, life.HeldBy = r.Life.Reason, r.Life.By
	}
	r.State, r.Life = StateDeleted, life
	return nil
}

// Restore is a change of a deleted tenant: it is what it was. The error is Conflict with Code
// "tenant_not_deleted" or "tenant_purging".
func (r *TenantRecord) Restore(now time.Time) error {
	if err := r.isDeleted("restored"); err != nil {
		return err
	}
	if r.Life != nil && r.Life.Purging {
		return errs.Coded(errs.Conflict, "tenant_purging", "what the tenant %s has is being removed: it cannot be restored any more", r.ID)
	}
	state, life := StateActive, &Life{Since: now.UTC()}
	if r.Life != nil && r.Life.Before == StateSuspended {
		state, life.Reason, life.By = StateSuspended, r.Life.Held, r.Life.HeldBy
	}
	r.State, r.Life = state, life
	return nil
}

// Purge is a change of a deleted tenant: what it has is removed now, and not when its grace is
// over. The error is Conflict with Code "tenant_not_deleted".
func (r *TenantRecord) Purge(now time.Time) error {
	if err := r.isDeleted("purged"); err != nil {
		return err
	}
	if r.Life != nil && r.Life.Purging {
		return nil // what has begun needs no word more
	}
	life := Life{}
	if r.Life != nil {
		life = *r.Life
	}
	if life.PurgeAt.IsZero() || life.PurgeAt.After(now) {
		life.PurgeAt = now.UTC()
	}
	r.Life = &life
	return nil
}

// PurgeDue is when what a deleted tenant has is to be removed; false is of one that is not
// deleted. One without a Life was deleted by a version that had none: it waits for Purge.
func (r *TenantRecord) PurgeDue() (time.Time, bool) {
	if r.State != StateDeleted || r.Life == nil || r.Life.PurgeAt.IsZero() {
		return time.Time{}, false
	}
	return r.Life.PurgeAt, true
}

func (r *TenantRecord) notNow(what string) error {
	return errs.Coded(errs.Conflict, "tenant_deleted", "the tenant %s is %s: it cannot be %s", r.ID, r.State, what)
}

func (r *TenantRecord) isDeleted(what string) error {
	if r.State == StateDeleted {
		return nil
	}
	return errs.Coded(errs.Conflict, "tenant_not_deleted", "the tenant %s is %s: only one that is deleted can be %s", r.ID, r.State, what)
}
