// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// Ban makes a ban of a tenant's clients, or changes the reason and the end of the one
// that is there for the same kind and value. Kind, Value, Reason and ExpiresAt of
// like are read. made says that there was none. The error is Invalid with Code
// "ban_invalid", or tenancy.ExceededError beyond tenancy.BansMax.
func (s *Store) Ban(ctx context.Context, tenant string, like tenancy.Ban) (b *tenancy.Ban, made bool, err error) {
	if err := s.CheckBan(&like); err != nil {
		return nil, false, err
	}
	return s.ban(ctx, tenant, like, tenancy.BansMax, func(old *tenancy.Ban) {
		old.Reason, old.ExpiresAt, old.Automatic, old.Level = like.Reason, like.ExpiresAt, false, 0
	})
}

// CheckBan brings a ban into its normal form, or returns the error that Ban would.
func (s *Store) CheckBan(b *tenancy.Ban) error {
	if err := b.Normalize(); err != nil {
		return err
	}
	if !b.ExpiresAt.IsZero() && !s.now().Before(b.ExpiresAt) {
		return errs.Coded(errs.Invalid, "ban_invalid", "expires_at: expected a time to come, found %s", b.ExpiresAt.Format(time.RFC3339))
	}
	return nil
}

// ban writes a ban, which is normal; change has it be what it is to be, from the one
// that is there or a new one, of which there are at most most.
func (s *Store) ban(ctx context.Context, tenant string, like tenancy.Ban, most int, change func(*tenancy.Ban)) (b *tenancy.Ban, made bool, err error) {
	id := tenancy.BanID(like.Kind, like.Value)
	for {
		b, err = s.BanByID(ctx, tenant, id)
		at := bus.Absent
		switch {
		case err == nil:
			at = bus.Revision(b.Revision)
		case errs.Is(err, errs.NotFound):
			if err := s.mayBan(ctx, tenant, most); err != nil {
				return nil, false, err
			}
			b = &tenancy.Ban{ID: id, Tenant: tenant, Kind: like.Kind, Value: like.Value, CreatedAt: s.now().UTC()}
		default:
			return nil, false, err
		}
		change(b)
		b.Revision, err = put(ctx, s.bans, b.Key(), b, at)
		if errs.Is(err, errs.Conflict) {
			continue
		}
		return b, at == bus.Absent, err
	}
}

func (s *Store) mayBan(ctx context.Context, tenant string, most int) error {
	keys, err := s.bans.Keys(ctx, tenancy.BanPrefix(tenant))
	if err != nil {
		return err
	}
	if len(keys) >= most {
		return &tenancy.ExceededError{Quota: "bans", Limit: int64(most), Usage: int64(len(keys))}
	}
	return nil
}

// BanByID returns a ban of a tenant, or an error NotFound.
func (s *Store) BanByID(ctx context.Context, tenant, id string) (*tenancy.Ban, error) {
	e, err := s.bans.Get(ctx, tenancy.BanPrefix(tenant)+id)
	if err != nil {
		return nil, named(err, "ban_not_found", "there is no ban %q", id)
	}
	return tenancy.DecodeBan(e.Value, uint64(e.Revision))
}

// Bans returns at most limit of the tenant's bans that hold now and whose ids come
// after cursor, in order, and the cursor of the next page, empty at the end.
func (s *Store) Bans(ctx context.Context, tenant, cursor string, limit int) (page []*tenancy.Ban, next string, err error) {
	entries, _, err := bus.List(ctx, s.bans, tenancy.BanPrefix(tenant), 2*tenancy.BansMax)
	if err != nil {
		return nil, "", err
	}
	for _, e := range entries {
		b, err := tenancy.DecodeBan(e.Value, uint64(e.Revision))
		if err != nil {
			return nil, "", err
		}
		if b.ID > cursor && b.Active(s.now()) {
			page = append(page, b)
		}
	}
	slices.SortFunc(page, func(a, b *tenancy.Ban) int { return strings.Compare(a.ID, b.ID) })
	if len(page) > limit {
		page = page[:limit]
		next = page[limit-1].ID
	}
	return page, next, nil
}

// Unban ends a ban and returns it as it was. The error is NotFound if there is none.
// With ifRevision other than 0 it must be at that revision, else the error is
// Conflict with Code "revision_mismatch".
func (s *Store) Unban(ctx context.Context, tenant, id string, ifRevision uint64) (*tenancy.Ban, error) {
	for {
		b, err := s.BanByID(ctx, tenant, id)
		if err != nil {
			return nil, err
		}
		if ifRevision != 0 && b.Revision != ifRevision {
			return nil, errs.Coded(errs.Conflict, "revision_mismatch", "the ban is at revision %d, not %d", b.Revision, ifRevision)
		}
		err = s.bans.Delete(ctx, b.Key(), bus.Revision(b.Revision))
		if errs.Is(err, errs.Conflict) {
			continue
		}
		return b, err
	}
}

// Flapped makes an automatic ban of a client id that a gateway has seen to flap. It
// holds for longer each time. A ban that somebody has made stays as it is. The result
// is nil if the tenant does not ban for that. The error is a tenancy.ExceededError beyond
// tenancy.AutomaticBansMax.
func (s *Store) Flapped(ctx context.Context, f tenancy.Flap) (*tenancy.Ban, error) {
	t, err := s.Tenant(ctx, f.Tenant)
	if err != nil || t.Flapping == nil {
		return nil, err
	}
	like := tenancy.Ban{Kind: tenancy.BanClientID, Value: f.ClientID}
	if err := like.Normalize(); err != nil {
		return nil, err
	}
	now := s.now().UTC()
	b, _, err := s.ban(ctx, f.Tenant, like, tenancy.AutomaticBansMax, func(b *tenancy.Ban) {
		switch {
		case !b.Automatic && b.Level == 0 && b.Revision != 0 && b.Active(now):
			return // somebody's own
		case b.Automatic && b.Active(now):
			return // another gateway was faster
		}
		b.Level = tenancy.LevelAfter(b.Level, b.ExpiresAt, now)
		b.Automatic, b.ExpiresAt = true, now.Add(t.Flapping.Duration(b.Level))
		b.Reason = fmt.Sprintf("more than %d connects in %d s", t.Flapping.Connects, t.Flapping.Window)
	})
	return b, err
}

// ReapBans removes bans that are over, automatic ones when their level is forgotten
// too. It returns how many it has removed.
func (s *Store) ReapBans(ctx context.Context) (n int, err error) {
	entries, _, err := bus.List(ctx, s.bans, "", 1<<20)
	if err != nil {
		return 0, err
	}
	now := s.now()
	for _, e := range entries {
		b, err := tenancy.DecodeBan(e.Value, uint64(e.Revision))
		if err != nil || b.Active(now) || b.Automatic && tenancy.LevelAfter(b.Level, b.ExpiresAt, now) > 1 {
			continue
		}
		switch err := s.bans.Delete(ctx, e.Key, e.Revision); {
		case err == nil:
			n++
		case !errs.Is(err, errs.Conflict):
			return n, err
		}
	}
	return n, nil
}

// RunBans makes the bans that gateways ask for, and removes those that are over, until
// ctx is done.
func (s *Store) RunBans(ctx context.Context) error {
	stop, err := s.cfg.Bus.Serve(tenancy.SubjectFlapping, func(ctx context.Context, body []byte) ([]byte, error) {
		var f tenancy.Flap
		if err := json.Unmarshal(body, &f); err != nil {
			return nil, errs.New(errs.Invalid, "expected a flap in JSON: %w", err)
		}
		b, err := s.Flapped(ctx, f)
		if err != nil {
			return nil, err
		}
		if b != nil {
			s.log.Info("a client is banned: it connects again and again", "tenant", f.Tenant, "client_id", f.ClientID, "gateway", f.Gateway, "level", b.Level, "until", b.ExpiresAt)
		}
		return nil, nil
	})
	if err != nil {
		return err
	}
	defer stop()
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		if _, err := s.ReapBans(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("bans that are over are not removed", "error", err, "retry_in", time.Minute)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
