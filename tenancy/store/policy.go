// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// Policy is one revision of a tenant's own policy. It never changes. It is a plain
// value.
type Policy struct {
	Tenant   string `json:"tenant"`
	Revision uint64 `json:"revision"`
	// Files are its text in Rego, by name; nil in lists.
	Files       map[string]string `json:"files,omitempty"`
	Description string            `json:"description,omitempty"`
	// Connect, Classes and Grants are what it was compiled to: whether it has
	// mqtt.connect, its classes, and how many entries they have together.
	Connect   bool      `json:"connect,omitempty"`
	Dynamic   bool      `json:"dynamic,omitempty"`
	Classes   []string  `json:"classes"`
	Grants    int       `json:"grants"`
	CreatedBy string    `json:"created_by,omitempty"`
	CreatedAt time.Time `json:"created_at"`
}

const (
	// policiesKept is how many revisions of a tenant are kept, beside those that its
	// record names.
	policiesKept = 50
	// valueMost is the most bytes of a value in a bucket: NATS takes 1 MiB.
	valueMost = 1_000_000
)

// The text is apart, so that lists need not read it.
const (
	policyMeta = "meta."
	policyText = "text."
)

func policyKey(kind, tenant string, revision uint64) string {
	return fmt.Sprintf("%s%s.%d", kind, tenant, revision)
}

// Policy returns a revision of a tenant's policy, or an error NotFound.
func (s *Store) Policy(ctx context.Context, tenant string, revision uint64) (*Policy, error) {
	p := &Policy{}
	for kind, to := range map[string]any{policyMeta: p, policyText: &p.Files} {
		e, err := s.policies.Get(ctx, policyKey(kind, tenant, revision))
		if err != nil {
			return nil, named(err, "policy_not_found", "there is no revision %d of the policy", revision)
		}
		if err := json.Unmarshal(e.Value, to); err != nil {
			return nil, errs.New(errs.Internal, "stored policy: %w", err)
		}
	}
	return p, nil
}

// Policies lists the revisions that are kept, the newest first, without their text.
func (s *Store) Policies(ctx context.Context, tenant string) ([]Policy, error) {
	entries, _, err := bus.List(ctx, s.policies, policyMeta+tenant+".", 10*policiesKept)
	if err != nil {
		return nil, err
	}
	all := make([]Policy, len(entries))
	for i, e := range entries {
		if err := json.Unmarshal(e.Value, &all[i]); err != nil {
			return nil, errs.New(errs.Internal, "stored policy: %w", err)
		}
	}
	slices.SortFunc(all, func(a, b Policy) int { return int(int64(b.Revision) - int64(a.Revision)) })
	return all, nil
}

// Grants returns the compiled grants of a class of a revision, or an error NotFound.
func (s *Store) Grants(ctx context.Context, tenant string, revision uint64, class string) (*tenancy.GrantSet, error) {
	e, err := s.grants.Get(ctx, tenancy.GrantsKey(tenant, revision, class))
	if err != nil {
		return nil, named(err, "class_unknown", "revision %d of the policy has no class %q", revision, class)
	}
	return tenancy.DecodeGrants(e.Value, revision, class)
}

// AddPolicy stores another revision, with the grants of its classes, and returns it
// with its number. Nothing looks at it before the tenant's record does (LivePolicy).
// Of like Files, Description, Connect, Dynamic and CreatedBy are read.
func (s *Store) AddPolicy(ctx context.Context, t *tenancy.TenantRecord, like Policy, sets []*tenancy.GrantSet) (*Policy, error) {
	p := like
	p.Tenant, p.CreatedAt, p.Grants, p.Classes = t.ID, s.now().UTC(), 0, nil
	for _, set := range sets {
		p.Classes = append(p.Classes, set.Class)
		p.Grants += len(set.Entries)
	}
	p.Revision = 1
	if t.Policy != nil {
		p.Revision = t.Policy.Newest + 1
	}
	text, err := json.Marshal(p.Files)
	if err != nil {
		return nil, errs.New(errs.Internal, "encode a policy: %w", err)
	}
	if len(text) > valueMost {
		return nil, errs.Coded(errs.Invalid, "policy_invalid", "expected a policy of at most %d bytes as JSON, found %d", valueMost, len(text))
	}
	p.Files = nil
	for ; ; p.Revision++ {
		_, err := put(ctx, s.policies, policyKey(policyMeta, t.ID, p.Revision), p, bus.Absent)
		if err == nil {
			break
		}
		if !errs.Is(err, errs.Conflict) { // of one that was made at the same time, or never became live
			return nil, err
		}
	}
	p.Files = like.Files
	if _, err := s.policies.Put(ctx, policyKey(policyText, t.ID, p.Revision), text, bus.Any); err != nil {
		return nil, err
	}
	for _, set := range sets {
		value, err := json.Marshal(tenancy.NewGrants(set.Entries))
		if err != nil {
			return nil, errs.New(errs.Internal, "encode grants: %w", err)
		}
		if len(value) > valueMost {
			return nil, errs.Coded(errs.Invalid, "policy_invalid", "expected grants of at most %d bytes as JSON for a class, found %d for %q", valueMost, len(value), set.Class)
		}
		if _, err := s.grants.Put(ctx, tenancy.GrantsKey(t.ID, p.Revision, set.Class), value, bus.Any); err != nil {
			return nil, err
		}
	}
	return &p, nil
}

// LivePolicy is a change of a tenant for ChangeTenant: that revision holds.
// onRevoke is tenancy.OnRevokeUnsubscribe or tenancy.OnRevokeDisconnect; empty
// leaves it as it is.
func LivePolicy(p *Policy, onRevoke string) func(*tenancy.TenantRecord) error {
	return withPolicy(func(r *tenancy.PolicyRef) {
		r.Revision, r.Connect, r.Dynamic, r.Classes = p.Revision, p.Connect, p.Dynamic, p.Classes
		r.Newest = max(r.Newest, p.Revision)
		if r.Shadow == p.Revision {
			r.Shadow = 0
		}
		if onRevoke != "" {
			r.OnRevoke = onRevoke
		}
	})
}

// ShadowPolicy is a change of a tenant for ChangeTenant: that revision is looked at
// beside the live one; 0 is none.
func ShadowPolicy(revision uint64) func(*tenancy.TenantRecord) error {
	return withPolicy(func(r *tenancy.PolicyRef) {
		r.Shadow, r.Newest = revision, max(r.Newest, revision)
	})
}

// NoPolicy is a change of a tenant for ChangeTenant: the default holds.
func NoPolicy(r *tenancy.TenantRecord) error {
	if r.Policy == nil {
		return nil
	}
	r.Policy = &tenancy.PolicyRef{Newest: r.Policy.Newest}
	return nil
}

func withPolicy(change func(*tenancy.PolicyRef)) func(*tenancy.TenantRecord) error {
	return func(r *tenancy.TenantRecord) error {
		p := tenancy.PolicyRef{OnRevoke: tenancy.OnRevokeUnsubscribe}
		if r.Policy != nil {
			p = *r.Policy
		}
		change(&p)
		r.Policy = &p
		return nil
	}
}

// PrunePolicies removes old revisions, and those of which nothing became.
func (s *Store) PrunePolicies(ctx context.Context, t *tenancy.TenantRecord) error {
	all, err := s.Policies(ctx, t.ID)
	if err != nil || t.Policy == nil || len(all) <= policiesKept {
		return err
	}
	for _, p := range all[policiesKept:] {
		if p.Revision == t.Policy.Revision || p.Revision == t.Policy.Shadow {
			continue
		}
		for _, class := range p.Classes {
			if err := s.grants.Delete(ctx, tenancy.GrantsKey(t.ID, p.Revision, class), bus.Any); err != nil {
				return err
			}
		}
		for _, kind := range []string{policyText, policyMeta} {
			if err := s.policies.Delete(ctx, policyKey(kind, t.ID, p.Revision), bus.Any); err != nil {
				return err
			}
		}
	}
	return nil
}
