// SPDX-License-Identifier: Apache-2.0

package sources

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/level"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/audit"
	"github.com/manormq/manor/tenancy/authn/password"
	"github.com/manormq/manor/tenancy/events"
	"github.com/manormq/manor/tenancy/files"
	"github.com/manormq/manor/tenancy/policy"
	"github.com/manormq/manor/tenancy/store"
)

// notesMost is how many notes on lines of a file an event has.
const notesMost = 5

// writers is how many credentials of a file are looked at, or written, at once.
const writers = 16

// apply has the tenant be as the file says, notes in o what came of it, and returns that in words.
func (s *Service) apply(ctx context.Context, c *change, o *store.Source) (string, error) {
	t, err := s.cfg.Store.Tenant(ctx, c.tenant)
	if err != nil {
		return "", err
	}
	if t.State == tenancy.StateDeleted {
		return "", errs.Coded(errs.NotFound, "tenant_not_found", "the tenant %q is deleted", t.ID)
	}
	if c.kind == tenancy.SourceACL {
		return s.applyACL(ctx, t, c, o)
	}
	want, err := parse(c.text)
	if err != nil {
		return "", err
	}
	return s.applyPasswd(ctx, t, c, want, o)
}

// parse returns the hashes of a vmq_passwd file by user. The error is that of files.ParsePasswd.
func parse(text string) (map[string]string, error) {
	users, err := files.ParsePasswd(text)
	if err != nil {
		return nil, err
	}
	all := make(map[string]string, len(users))
	for _, u := range users {
		all[u.Name] = u.Hash
	}
	return all, nil
}

// plan is what a vmq_passwd file changes.
type plan struct {
	change, add             []string
	added, changed, removed int
}

func (p *plan) String() string {
	return fmt.Sprintf("%d users added, %d changed, %d removed", p.added, p.changed, p.removed)
}

// applyPasswd has the credentials that come from the file be the wanted ones, hashes by user.
func (s *Service) applyPasswd(ctx context.Context, t *tenancy.TenantRecord, c *change, want map[string]string, o *store.Source) (string, error) {
	has, taken, err := s.present(ctx, t, want)
	if err != nil {
		return "", err
	}
	p := &plan{}
	last, begun := s.applied(c, o.Mark), *o
	begun.Mark = ""
	if c.folder {
		begun.FolderMark = ""
	}
	o.Users, o.Skipped = len(want), len(taken)
	err = s.audited(ctx, t, c, "vmq_passwd file", p, func() error {
		// If this process dies, what was applied last is not what is there.
		if err := s.cfg.Store.PutSource(ctx, &begun); err != nil {
			return err
		}
		// Who is gone first: that needs no hash.
		for name := range has {
			if _, ok := want[name]; ok {
				continue
			}
			ok, err := s.cfg.Store.RemoveSourced(ctx, t.ID, name, tenancy.SourcePasswd)
			if err != nil {
				return err
			}
			if ok {
				p.removed++
			}
		}
		if err := p.compare(ctx, has, taken, want, last); err != nil {
			return err
		}
		late := make(chan string, len(p.change)+len(p.add)) // made, or deleted, by the API since
		if err := each(ctx, p.change, func(ctx context.Context, name string) error {
			hash, err := s.hash(ctx, want[name])
			if err != nil {
				return err
			}
			ok, err := s.cfg.Store.SetSourcedPassword(ctx, t.ID, name, tenancy.SourcePasswd, hash)
			if err == nil && !ok {
				late <- name
			}
			return err
		}); err != nil {
			return err
		}
		p.changed = len(p.change) - len(late)
		if err := each(ctx, p.add, func(ctx context.Context, name string) error {
			hash, err := s.hash(ctx, want[name])
			if err == nil {
				err = s.cfg.Store.ImportCredential(ctx, t.ID, tenancy.Credential{Username: name, Hash: hash, Source: tenancy.SourcePasswd})
			}
			if errs.CodeOf(err) == "username_taken" {
				late <- name
				return nil
			}
			return err
		}); err != nil {
			return err
		}
		p.added = len(p.add) + len(p.change) - p.changed - len(late)
		o.Skipped += len(late)
		return nil
	})
	if err == nil {
		s.uses(ctx, t, int64(p.added))
	}
	told := p.String()
	if o.Skipped > 0 {
		told += fmt.Sprintf("; %d left as the API has made them", o.Skipped)
	}
	return told, err
}

// present returns the credentials that came from the file before, and the wanted ones that the
// API has made. The error is a tenancy.ExceededError if the tenant may not have the rest, too.
func (s *Service) present(ctx context.Context, t *tenancy.TenantRecord, want map[string]string) (has map[string]tenancy.Credential, taken map[string]bool, err error) {
	all, err := s.cfg.Store.AllCredentials(ctx, t.ID)
	if err != nil {
		return nil, nil, err
	}
	has, taken = map[string]tenancy.Credential{}, map[string]bool{}
	for name, c := range all {
		if c.Source == tenancy.SourcePasswd {
			has[name] = c
		} else if _, ok := want[name]; ok {
			taken[name] = true
		}
	}
	if more := len(want) - len(taken) - len(has); more > 0 {
		err = s.cfg.Store.CheckImport(ctx, t, more)
	}
	return has, taken, err
}

// uses has the history say so if the tenant has come to a level of the quota credentials with what
// was made.
func (s *Service) uses(ctx context.Context, t *tenancy.TenantRecord, made int64) {
	limits, err := t.Limits()
	if err != nil || made <= 0 || limits.Credentials < 1 {
		return
	}
	now, err := s.cfg.Store.CountCredentials(ctx, t.ID)
	if err != nil {
		return // the API tells, when it makes the next one
	}
	if at := level.Crossed(now-made, now, limits.Credentials); at != level.Below {
		s.cfg.Happened(t.ID, events.OfQuota(time.Now(), "credentials", at, float64(now)/float64(limits.Credentials)))
	}
}

// compare finds who is to be added, and changed. last are the lines that were applied last, nil
// if that is not known.
func (p *plan) compare(ctx context.Context, has map[string]tenancy.Credential, taken map[string]bool, want, last map[string]string) error {
	var both []string
	for name, hash := range want {
		switch _, ok := has[name]; {
		case taken[name]:
		case !ok:
			p.add = append(p.add, name)
		case last[name] != hash:
			both = append(both, name)
		}
	}
	changed := make(chan string, len(both))
	err := each(ctx, both, func(_ context.Context, name string) error {
		is := has[name].Hash == want[name]
		var err error
		if password.IsVerneMQ(want[name]) {
			is, err = password.IsWrapOf(has[name].Hash, want[name])
		}
		if !is {
			changed <- name
		}
		return err
	})
	close(changed)
	for name := range changed {
		p.change = append(p.change, name)
	}
	return err
}

// each does something for all names, some at once, until one fails.
func each(ctx context.Context, names []string, do func(context.Context, string) error) error {
	g, all := errgroup.WithContext(ctx)
	g.SetLimit(writers)
	for _, name := range names {
		if all.Err() != nil {
			break
		}
		g.Go(func() error { return do(all, name) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

// sourceTurn is under what files are hashed: all of them have the share of one tenant, which waits
// for nobody at its gateway.
const sourceTurn = "sources"

// hash is a hash of the file as it is stored.
func (s *Service) hash(ctx context.Context, hash string) (string, error) {
	if !password.IsVerneMQ(hash) {
		return hash, nil
	}
	return password.WrapVerneMQ(hash, func(inner string) (string, error) { return s.cfg.Hasher.Hash(ctx, sourceTurn, inner) })
}

// revision says which one is live.
type revision struct{ *store.Source }

func (r revision) String() string {
	return fmt.Sprintf("revision %d of the policy is live", r.Revision)
}

// applyACL makes the live revision of the policy what the file says.
func (s *Service) applyACL(ctx context.Context, t *tenancy.TenantRecord, c *change, o *store.Source) (string, error) {
	acl, err := files.PolicyOfACL(c.text, t.ID)
	if err != nil {
		return "", err
	}
	source := policy.Source{"policy.rego": acl.Rego}
	if live := t.Policy.Live(); live != 0 {
		p, err := s.cfg.Store.Policy(ctx, t.ID, live)
		if err != nil {
			return "", err
		}
		if maps.Equal(p.Files, source) {
			o.Revision = live
			return fmt.Sprintf("revision %d of the policy is what it says", live), nil
		}
	}
	program, sets, err := s.cfg.Policies.Compile(ctx, t, source)
	if err != nil {
		return "", err
	}
	err = s.audited(ctx, t, c, "policy, of the vmq_acl file", revision{o}, func() error {
		made, err := s.cfg.Store.AddPolicy(ctx, t, store.Policy{Files: source, Description: "vmq_acl file", Connect: program.Connect, Dynamic: program.Dynamic, CreatedBy: "file"}, sets)
		if err != nil {
			return err
		}
		o.Revision = made.Revision
		_, now, err := s.cfg.Store.ChangeTenant(ctx, t.ID, 0, store.LivePolicy(made, ""))
		if err != nil {
			return err
		}
		if err := s.cfg.Store.PrunePolicies(ctx, now); err != nil {
			s.cfg.Log.Warn("old revisions of a policy were not removed", "tenant", t.ID, "error", err)
		}
		return nil
	})
	told := []string{revision{o}.String()}
	for i, n := range acl.Notes {
		if i == notesMost {
			told = append(told, fmt.Sprintf("and %d more lines that mean something else here", acl.Noted-i))
			break
		}
		told = append(told, n.String())
	}
	return strings.Join(told, "; "), err
}

// audited makes a change, and has it in the audit log of the tenant's organization where that is
// wanted, with what says what was made.
func (s *Service) audited(ctx context.Context, t *tenancy.TenantRecord, c *change, target string, what fmt.Stringer, do func() error) error {
	if t.Organization == "" || !c.folder {
		return do()
	}
	p, err := s.cfg.Audit.Begin(ctx, audit.Change{
		Organization: t.Organization, Actor: audit.Actor{Kind: audit.ActorOperator}, Method: "FILE", Operation: "apply-source", Tenant: t.ID, Target: target,
	})
	if err != nil {
		return err
	}
	end := context.WithoutCancel(ctx)
	if err := do(); err != nil {
		if lost := p.Lost(end); lost != nil {
			s.cfg.Log.Warn("a change is in the audit log later", "tenant", t.ID, "error", lost)
		}
		return err
	}
	return p.Done(end, map[string]string{"what": what.String()})
}
