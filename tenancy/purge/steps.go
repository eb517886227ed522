// SPDX-License-Identifier: Apache-2.0

package purge

import (
	"context"
	"errors"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/audit"
	"github.com/manormq/manor/tenancy/lease"
	"github.com/manormq/manor/tenancy/store"
)

// purge removes all that a tenant has. Each step can be done again, and each that another one
// could make undone comes before it: nobody is let in any more, so brokers go first, and the
// record, by which all this is found, last.
func (s *Service) purge(ctx context.Context, id string) error {
	t, err := s.cfg.Store.BeginPurge(ctx, id, s.cfg.Now())
	if errs.Is(err, errs.NotFound) {
		return errs.Coded(errs.Conflict, "tenant_not_deleted", "the tenant %s is not there any more", id)
	}
	if err != nil {
		return err
	}
	s.worker.Edit(id, func(x *lease.Item[*deleted], known bool) bool {
		if known {
			x.Value.purging = true
		}
		return known
	})
	p, err := s.note(ctx, t)
	if err != nil {
		return err
	}
	s.cfg.Log.Info("what a deleted tenant has is removed", "tenant", id, "organization", t.Organization, "deleted_at", t.Life.Since)
	// A process that stood still for longer than its lock lasts must not go on with what another one
	// has ended: the id may be that of another tenant by now.
	still := func() error {
		_, err := s.cfg.Store.StillPurged(ctx, t)
		return err
	}
	brokers := func(ctx context.Context, p *store.Purged) error { return s.brokers(ctx, p, still) }
	for _, step := range []func(context.Context, *store.Purged) error{brokers, s.domains, s.records, s.events, s.proof} {
		if err := still(); err != nil {
			return err
		}
		if err := step(ctx, p); err != nil {
			return err
		}
	}
	return s.end(ctx, t, p)
}

// note is how far the purge is: as another process has left it, or from its beginning.
func (s *Service) note(ctx context.Context, t *tenancy.TenantRecord) (*store.Purged, error) {
	p, err := s.cfg.Store.Purged(ctx, t.ID)
	switch {
	case errs.Is(err, errs.NotFound):
		p = &store.Purged{}
	case err != nil:
		return nil, err
	case p.DoneAt.IsZero() && p.DeletedAt.Equal(t.Life.Since):
		return p, nil
	}
	p = &store.Purged{Tenant: t.ID, Organization: t.Organization, DeletedAt: t.Life.Since, Revision: p.Revision}
	return p, s.cfg.Store.PutPurged(ctx, p)
}

// count adds what was removed, and keeps it.
func (s *Service) count(ctx context.Context, p *store.Purged, removed map[string]int64) error {
	if len(removed) == 0 {
		return nil
	}
	p.Add(removed)
	return s.cfg.Store.PutPurged(ctx, p)
}

// brokers have the tenant be forgotten until they find nothing, twice: what was under way when
// they first found nothing has come by then.
func (s *Service) brokers(ctx context.Context, p *store.Purged, still func() error) error {
	for nothing := 0; nothing < 2; {
		if err := still(); err != nil {
			return err
		}
		a, err := s.forget(ctx, p.Tenant)
		if err != nil {
			return err
		}
		if nothing++; a.Found {
			nothing = 0
		}
		removed := map[string]int64{}
		for kind, n := range map[string]int64{"sessions": a.Usage.PersistentSessions, "queued_messages": a.Usage.QueueMessages, "retained_messages": a.Usage.Retained} {
			if n > 0 {
				removed[kind] = n
			}
		}
		if err := s.count(ctx, p, removed); err != nil {
			return err
		}
		if nothing < 2 {
			pause(ctx, rest)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

func (s *Service) forget(ctx context.Context, tenant string) (*link.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	return s.cfg.Brokers.Query(ctx, link.Query{Kind: link.QueryForget, Tenant: tenant})
}

func (s *Service) domains(ctx context.Context, p *store.Purged) error {
	n, err := s.cfg.Domains.Purge(ctx, p.Tenant)
	if n > 0 {
		err = errors.Join(err, s.count(ctx, p, map[string]int64{"domains": n}))
	}
	return err
}

func (s *Service) records(ctx context.Context, p *store.Purged) error {
	removed, err := s.cfg.Store.PurgeRecords(ctx, p.Tenant)
	return errors.Join(err, s.count(ctx, p, removed))
}

func (s *Service) events(ctx context.Context, p *store.Purged) error {
	return s.cfg.Events.Forget(ctx, p.Tenant)
}

// proof looks whether anything is left.
func (s *Service) proof(ctx context.Context, p *store.Purged) error {
	left, err := s.cfg.Store.Remains(ctx, p.Tenant)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return errs.New(errs.Unavailable, "expected nothing in the store, found %v", left)
	}
	a, err := s.forget(ctx, p.Tenant)
	if err == nil && a.Found {
		err = errs.New(errs.Unavailable, "expected nothing at the brokers, found something")
	}
	return err
}

// end removes the tenant's record, and has it in the audit log of its organization.
func (s *Service) end(ctx context.Context, t *tenancy.TenantRecord, p *store.Purged) error {
	noted, err := s.cfg.Audit.Begin(ctx, audit.Change{
		Organization: t.Organization, Actor: audit.Actor{Kind: audit.ActorOperator}, Method: "PURGE", Operation: "purge-tenant-data", Tenant: t.ID, Target: "tenant " + t.ID,
		Before: map[string]any{"state": t.State, "deleted_at": t.Life.Since, "purge_at": t.Life.PurgeAt},
	})
	if err != nil {
		return err
	}
	err = s.cfg.Store.EndPurge(ctx, t)
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err != nil {
		noted.Drop(late)
		return err
	}
	// Until here a purge that is begun again goes on with what was counted.
	p.DoneAt = s.cfg.Now().UTC()
	if err := s.cfg.Store.PutPurged(late, p); err != nil {
		s.cfg.Log.Warn("it is not noted when a tenant was purged, and what comes of it later is not looked for", "tenant", t.ID, "error", err)
	}
	if err := noted.Done(late, map[string]any{"removed": p.Removed, "left": 0}); err != nil {
		s.cfg.Log.Warn("the purge of a tenant is in the audit log later, as unknown", "tenant", t.ID, "error", err)
	}
	s.results.WithLabelValues("done").Inc()
	s.cfg.Log.Info("a deleted tenant is purged, and nothing of it is left", "tenant", t.ID, "organization", t.Organization, "removed", p.Removed)
	return nil
}
