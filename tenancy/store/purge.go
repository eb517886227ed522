// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"encoding/json"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// purgedBucket says which tenants were purged: tenant -> Purged. It is kept for ever.
const purgedBucket = "purged_tenants"

// Purged is what is left of a tenant whose data was removed: its id, which nobody but its
// organization gets again, since its devices may still call that host name. It is a plain value.
type Purged struct {
	Tenant       string    `json:"tenant"`
	Organization string    `json:"organization"`
	DeletedAt    time.Time `json:"deleted_at,omitzero"`
	// Removed is how much was removed, by kind, as far as it was counted: what a process had
	// removed that died then is not.
	Removed map[string]int64 `json:"removed,omitempty"`
	// DoneAt is when nothing was left; zero while the purge goes on.
	DoneAt time.Time `json:"done_at,omitzero"`
	// Revision is the bucket's; it is not part of the value.
	Revision uint64 `json:"-"`
}

// Add counts what was removed.
func (p *Purged) Add(removed map[string]int64) {
	for kind, n := range removed {
		if n > 0 {
			if p.Removed == nil {
				p.Removed = map[string]int64{}
			}
			p.Removed[kind] += n
		}
	}
}

// BeginPurge notes that what a deleted tenant has is removed from now on, and returns it as it
// is then. The error is Conflict with Code "tenant_not_deleted" or, of one that can still be
// restored, "tenant_not_due".
func (s *Store) BeginPurge(ctx context.Context, id string, now time.Time) (*tenancy.TenantRecord, error) {
	return s.UpdateTenant(ctx, id, 0, func(r *tenancy.TenantRecord) error {
		at, ok := r.PurgeDue()
		switch {
		case !ok:
			return errs.Coded(errs.Conflict, "tenant_not_deleted", "the tenant %s is %s: only one that is deleted can be purged", id, r.State)
		case at.After(now):
			return errs.Coded(errs.Conflict, "tenant_not_due", "the tenant %s can be restored until %s", id, at.Format(time.RFC3339))
		}
		life := *r.Life
		life.Purging = true
		r.Life = &life
		return nil
	})
}

// part is a bucket, or a part of one, that has something of tenants.
type part struct {
	kind   string // what is counted
	bucket bus.Bucket
	// prefix is what the keys of a tenant begin with; exact says that it is the only key.
	prefix string
	exact  bool
}

// parts are all but the tenant's own record, and its domains, whose names lead to others.
func (s *Store) parts(tenant string) []part {
	of := tenant + "."
	return []part{
		{"credentials", s.credentials, of, false},
		{"devices", s.devices, of, false},
		{"device_groups", s.deviceGroups, of, false},
		{"device_groups", s.deviceGroups, indexedKey(tenant), true},
		{"grants", s.grants, of, false},
		{"policies", s.policies, policyMeta + of, false},
		{"policies", s.policies, policyText + of, false},
		{"bans", s.bans, of, false},
		{"token_keys", s.tokenKeys, of, false},
		{"managed_cas", s.managedCAs, tenant, true},
		{"claims", s.claims, of, false},
		{"operations", s.operations, of, false},
		{"sources", s.sources, of, false},
		{"cells", s.cells, tenant, true},
		{"domains", s.domains, of, false},
	}
}

// A part may have a million keys: keysTime is for how long they are read, and
// removedAtOnce is how many are on their way to be removed.
const (
	keysTime      = 5 * time.Minute
	removedAtOnce = 32
)

// keys are those of a part that are there.
func (p *part) keys(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, keysTime)
	defer cancel()
	if !p.exact {
		return p.bucket.Keys(ctx, p.prefix)
	}
	_, err := p.bucket.Get(ctx, p.prefix)
	switch {
	case errs.Is(err, errs.NotFound):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return []string{p.prefix}, nil
}

// remove removes keys of a part, and returns of how many it is known.
func (p *part) remove(ctx context.Context, keys []string) (int64, error) {
	var n atomic.Int64
	g, each := errgroup.WithContext(ctx)
	g.SetLimit(removedAtOnce)
	for _, key := range keys {
		if each.Err() != nil {
			break
		}
		g.Go(func() error {
			if err := p.bucket.Delete(each, key, bus.Any); err != nil && !errs.Is(err, errs.NotFound) {
				return err
			}
			n.Add(1)
			return nil
		})
	}
	err := g.Wait()
	if err == nil {
		err = ctx.Err()
	}
	return n.Load(), err
}

// PurgeRecords removes all that the store has of a tenant but its record and its domains, and
// returns how many of each kind. It may be called again after an error.
func (s *Store) PurgeRecords(ctx context.Context, tenant string) (map[string]int64, error) {
	removed := map[string]int64{}
	for _, p := range s.parts(tenant) {
		if p.kind == "domains" {
			continue
		}
		keys, err := p.keys(ctx)
		if err != nil {
			return removed, err
		}
		n, err := p.remove(ctx, keys)
		if n > 0 {
			removed[p.kind] += n
		}
		if err != nil {
			return removed, err
		}
	}
	s.counts.set(tenant, 0, s.now())
	s.deviceCounts.set(tenant, 0, s.now())
	return removed, nil
}

// Remains is how many keys the store has of a tenant beside its record, by kind: nothing, when
// it is purged.
func (s *Store) Remains(ctx context.Context, tenant string) (map[string]int64, error) {
	left := map[string]int64{}
	for _, p := range s.parts(tenant) {
		keys, err := p.keys(ctx)
		if err != nil {
			return nil, err
		}
		if n := int64(len(keys)); n > 0 {
			left[p.kind] += n
		}
	}
	return left, nil
}

// Purged returns what is left of a tenant that was purged, or an error NotFound.
func (s *Store) Purged(ctx context.Context, tenant string) (*Purged, error) {
	e, err := s.purged.Get(ctx, tenant)
	if err != nil {
		return nil, named(err, "tenant_not_found", "the tenant %q was not purged", tenant)
	}
	p := &Purged{Revision: uint64(e.Revision)}
	if err := json.Unmarshal(e.Value, p); err != nil {
		return nil, errs.New(errs.Internal, "stored purge of %s: %w", tenant, err)
	}
	return p, nil
}

// PutPurged keeps how far a purge is. The error is Conflict if somebody else has changed that.
func (s *Store) PutPurged(ctx context.Context, p *Purged) error {
	rev, err := put(ctx, s.purged, p.Tenant, p, bus.Revision(p.Revision))
	if err == nil {
		p.Revision = rev
	}
	return err
}

// StillPurged returns the record of a tenant that BeginPurge returned as t, as it is now. The error is
// Conflict with Code "tenant_not_deleted" if it is not that one any more: somebody else has ended
// the purge, and another tenant may have the id.
func (s *Store) StillPurged(ctx context.Context, t *tenancy.TenantRecord) (*tenancy.TenantRecord, error) {
	r, err := s.tenant(ctx, t.ID)
	switch {
	case err != nil && !errs.Is(err, errs.NotFound):
		return nil, err
	case err != nil || r.State != tenancy.StateDeleted || r.Life == nil || !r.Life.Purging || !r.Life.Since.Equal(t.Life.Since):
		return nil, errs.Coded(errs.Conflict, "tenant_not_deleted", "the tenant %s is purged already", t.ID)
	}
	return r, nil
}

// endTries is how often the record is read again that somebody changes while it is removed.
const endTries = 10

// EndPurge removes the record of a tenant that has nothing any more, and its id from its
// organization. It may be called again after an error, and does nothing to another tenant that has
// the id since.
func (s *Store) EndPurge(ctx context.Context, t *tenancy.TenantRecord) error {
	for try := 1; ; try++ {
		now, err := s.StillPurged(ctx, t)
		if err == nil {
			err = s.endPurge(ctx, now)
		}
		if !errs.Is(err, errs.Conflict) || errs.CodeOf(err) == "tenant_not_deleted" || try == endTries {
			return err
		}
	}
}

func (s *Store) endPurge(ctx context.Context, t *tenancy.TenantRecord) error {
	_, _, err := s.ChangeOrganization(ctx, t.Organization, 0, func(o *Organization) error {
		o.Tenants = slices.DeleteFunc(o.Tenants, func(id string) bool { return id == t.ID })
		return nil
	})
	if err != nil && !errs.Is(err, errs.NotFound) {
		return err
	}
	if err := s.tenants.Delete(ctx, t.ID, bus.Revision(t.Revision)); err != nil && !errs.Is(err, errs.NotFound) {
		return err
	}
	return nil
}

// mayTake returns an error Conflict with Code "tenant_taken" if the id was that of another
// organization's tenant; organization is empty for one that is new.
func (s *Store) mayTake(ctx context.Context, id, organization string) error {
	p, err := s.Purged(ctx, id)
	switch {
	case errs.Is(err, errs.NotFound):
		return nil
	case err != nil:
		return err
	case p.Organization != organization || organization == "":
		return tenantTaken(id)
	}
	return nil
}

// PurgedSince are the ids of tenants that were purged since then.
func (s *Store) PurgedSince(ctx context.Context, since time.Time) ([]string, error) {
	entries, _, err := bus.List(ctx, s.purged, "", 1<<30)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		var p Purged
		if err := json.Unmarshal(e.Value, &p); err != nil {
			s.log.Error("a stored purge cannot be read", "tenant", e.Key, "error", err)
			continue
		}
		if p.DoneAt.After(since) {
			ids = append(ids, e.Key)
		}
	}
	return ids, nil
}
