// SPDX-License-Identifier: Apache-2.0

package tenancy

import (
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/infra/errs"
)

// What each change makes of each state.
func TestLife(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	const grace = time.Hour
	changes := map[string]func(*TenantRecord) error{
		"suspend": func(r *TenantRecord) error { return r.Suspend(ByOwner, "unpaid", now) },
		"resume":  func(r *TenantRecord) error { return r.Resume(ByOwner, now) },
		"hold":    func(r *TenantRecord) error { return r.Suspend(ByOperator, "abuse", now) },
		"free":    func(r *TenantRecord) error { return r.Resume(ByOperator, now) },
		"delete":  func(r *TenantRecord) error { return r.Delete(now, grace) },
		"restore": func(r *TenantRecord) error { return r.Restore(now) },
		"purge":   func(r *TenantRecord) error { return r.Purge(now) },
	}
	for _, c := range []struct {
		from   State
		life   *Life
		change string
		want   State
		code   string
	}{
		{StateActive, nil, "suspend", StateSuspended, ""},
		{StateActive, nil, "resume", StateActive, ""},
		{StateActive, nil, "delete", StateDeleted, ""},
		{StateActive, nil, "restore", "", "tenant_not_deleted"},
		{StateActive, nil, "purge", "", "tenant_not_deleted"},
		{StateSuspended, nil, "suspend", StateSuspended, ""},
		{StateSuspended, &Life{Reason: "other"}, "resume", StateActive, ""},
		{StateSuspended, &Life{Reason: "other"}, "delete", StateDeleted, ""},
		{StateActive, nil, "hold", StateSuspended, ""},
		{StateSuspended, &Life{Reason: "other"}, "hold", StateSuspended, ""},
		{StateSuspended, &Life{Reason: "other"}, "free", StateActive, ""},
		{StateSuspended, &Life{Reason: "abuse", By: ByOperator}, "free", StateActive, ""},
		{StateSuspended, &Life{Reason: "abuse", By: ByOperator}, "resume", "", "suspended_by_operator"},
		{StateSuspended, &Life{Reason: "abuse", By: ByOperator}, "suspend", "", "suspended_by_operator"},
		{StateSuspended, nil, "restore", "", "tenant_not_deleted"},
		{StateSuspended, nil, "purge", "", "tenant_not_deleted"},
		{StateDeleted, &Life{PurgeAt: now.Add(grace)}, "suspend", "", "tenant_deleted"},
		{StateDeleted, &Life{PurgeAt: now.Add(grace)}, "resume", "", "tenant_deleted"},
		{StateDeleted, &Life{PurgeAt: now.Add(grace)}, "delete", "", "tenant_deleted"},
		{StateDeleted, &Life{PurgeAt: now.Add(grace), Before: StateActive}, "restore", StateActive, ""},
		{StateDeleted, &Life{PurgeAt: now.Add(grace), Before: StateSuspended, Held: "other"}, "restore", StateSuspended, ""},
		{StateDeleted, &Life{PurgeAt: now, Purging: true}, "restore", "", "tenant_purging"},
		{StateDeleted, &Life{PurgeAt: now.Add(grace)}, "purge", StateDeleted, ""},
		{StateDeleted, nil, "restore", StateActive, ""}, // by a version that had no Life
		{StateDeleted, nil, "purge", StateDeleted, ""},
		{StateReserved, nil, "suspend", "", "tenant_deleted"},
		{StateReserved, nil, "delete", "", "tenant_deleted"},
	} {
		r := &TenantRecord{ID: "acme", State: c.from, Life: c.life}
		err := changes[c.change](r)
		switch {
		case c.code != "":
			if errs.CodeOf(err) != c.code || !errs.Is(err, errs.Conflict) || r.State != c.from || r.Life != c.life {
				t.Errorf("%s of %s %+v: %+v, %v; expected %s and no change", c.change, c.from, c.life, r, err, c.code)
			}
			continue
		case err != nil || r.State != c.want:
			t.Errorf("%s of %s %+v: %s, %v; expected %s", c.change, c.from, c.life, r.State, err, c.want)
		}
		due, is := r.PurgeDue()
		if is != (c.want == StateDeleted) || is && c.change == "delete" && !due.Equal(now.Add(grace)) || is && c.change == "purge" && !due.Equal(now) {
			t.Errorf("%s of %s %+v: purged at %v, %v", c.change, c.from, c.life, due, is)
		}
		if c.life != nil && c.change == "restore" && r.Life.Reason != c.life.Held {
			t.Errorf("restored for the reason %q, before %q", r.Life.Reason, c.life.Held)
		}
		if c.change == "delete" && c.life != nil && (r.Life.Held != c.life.Reason || r.Life.Before != c.from) {
			t.Errorf("deleted it remembers %+v", r.Life)
		}
	}
	protected := &TenantRecord{ID: "acme", State: StateActive, DeletionProtection: true}
	if err := protected.Delete(now, grace); errs.CodeOf(err) != "tenant_protected" || protected.State != StateActive {
		t.Errorf("protected: %v, %+v", err, protected)
	}
}

// What a client of a tenant that is not active is told.
func TestTenant_Inactive(t *testing.T) {
	for _, c := range []struct {
		record TenantRecord
		want   string
	}{
		{TenantRecord{State: StateActive, Life: &Life{Reason: "of before"}}, ""},
		{TenantRecord{State: StateSuspended}, "the tenant is suspended"},
		{TenantRecord{State: StateSuspended, Life: &Life{Reason: "unpaid"}}, "the tenant is suspended: unpaid"},
	} {
		c.record.Plan = PlanDev
		tn, err := c.record.Tenant("test")
		if err != nil {
			t.Fatal(err)
		}
		err = tn.Inactive()
		if (err == nil) != (c.want == "") || err != nil && (err.Error() != c.want || errs.CodeOf(err) != CodeTenantInactive) {
			t.Errorf("%+v: %v, expected %q", c.record, err, c.want)
		}
	}
}

func TestValidReason(t *testing.T) {
	for s, ok := range map[string]bool{"": true, "unbezahlt, ß": true, strings.Repeat("ü", 200): true, strings.Repeat("ü", 201): false, "a\nb": false, "\xff": false} {
		if err := ValidReason(s); (err == nil) != ok || err != nil && errs.CodeOf(err) != "reason_invalid" {
			t.Errorf("%q: %v", s, err)
		}
	}
	if err := ValidDisplayName(strings.Repeat("x", 129)); errs.CodeOf(err) != "display_name_invalid" {
		t.Error(err)
	}
}
