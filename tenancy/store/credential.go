// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// CreateCredential adds a credential with that hash. The error is Conflict with
// Code "username_taken" if there is one of that name, and a
// tenancy.ExceededError if the tenant has as many as it may. The tenant must
// exist.
func (s *Store) CreateCredential(ctx context.Context, t *tenancy.TenantRecord, username, hash string) (*tenancy.Credential, error) {
	return s.AddCredential(ctx, t, tenancy.Credential{Username: username, Hash: hash})
}

// AddCredential is CreateCredential with all that a credential may say: Username,
// Hash, SCRAM and Session are read.
func (s *Store) AddCredential(ctx context.Context, t *tenancy.TenantRecord, like tenancy.Credential) (*tenancy.Credential, error) {
	if err := s.CheckCredential(ctx, t, like.Username); err != nil {
		return nil, err
	}
	if err := like.Session.Valid(); err != nil {
		return nil, err
	}
	c, err := s.createCredential(ctx, t.ID, like)
	if err != nil {
		return nil, err
	}
	if c.Generation == 1 {
		s.counts.add(t.ID, 1)
	} // else one was made again
	return c, nil
}

// CheckCredential returns why CreateCredential would fail now, or nil.
func (s *Store) CheckCredential(ctx context.Context, t *tenancy.TenantRecord, username string) error {
	if err := tenancy.ValidUsername(username); err != nil {
		return err
	}
	limits, err := t.Limits()
	if err != nil {
		return err
	}
	n, err := s.CountCredentials(ctx, t.ID)
	if err != nil {
		return err
	}
	switch c, err := s.Credential(ctx, t.ID, username); {
	case err == nil && madeBefore(ctx, c.Request):
		return nil // it is counted already
	case err == nil:
		return errTaken(username)
	case !errs.Is(err, errs.NotFound):
		return err
	}
	if limits.Credentials >= 0 && n >= limits.Credentials {
		return &tenancy.ExceededError{Quota: "credentials", Limit: limits.Credentials, Usage: n}
	}
	return nil
}

func errTaken(username string) error {
	return errs.Coded(errs.Conflict, "username_taken", "there is a credential with the username %q already", username)
}

func (s *Store) createCredential(ctx context.Context, tenant string, like tenancy.Credential) (*tenancy.Credential, error) {
	c := &tenancy.Credential{
		ID: newID("cred_"), Tenant: tenant, Username: like.Username, Hash: like.Hash, SCRAM: like.SCRAM, Session: like.Session, Source: like.Source,
		Generation: 1, CreatedAt: s.now().UTC(), Request: requestOf(ctx),
	}
	rev, err := put(ctx, s.credentials, tenancy.CredentialKey(tenant, c.Username), c, bus.Absent)
	if errs.Is(err, errs.Conflict) {
		return s.remakeCredential(ctx, c)
	}
	c.Revision = rev
	return c, err
}

// remakeCredential makes c in the place of the one that the same request has made
// before its process died: nobody was told the password of that. The error is Conflict
// with Code "username_taken" if that is another request's.
func (s *Store) remakeCredential(ctx context.Context, c *tenancy.Credential) (*tenancy.Credential, error) {
	was, err := s.Credential(ctx, c.Tenant, c.Username)
	if err != nil && !errs.Is(err, errs.NotFound) {
		return nil, err
	}
	if err != nil || !madeBefore(ctx, was.Request) {
		return nil, errTaken(c.Username)
	}
	c.ID, c.CreatedAt, c.Generation = was.ID, was.CreatedAt, was.Generation+1
	rev, err := put(ctx, s.credentials, tenancy.CredentialKey(c.Tenant, c.Username), c, bus.Revision(was.Revision))
	if errs.Is(err, errs.Conflict) {
		return nil, errTaken(c.Username)
	}
	c.Revision = rev
	return c, err
}

// Credential returns a credential, or an error NotFound.
func (s *Store) Credential(ctx context.Context, tenant, username string) (*tenancy.Credential, error) {
	e, err := s.credentials.Get(ctx, tenancy.CredentialKey(tenant, username))
	if err != nil {
		return nil, named(err, "credential_not_found", "there is no credential with the username %q", username)
	}
	c, err := tenancy.DecodeCredential(e.Value, uint64(e.Revision))
	return &c, err
}

// SetPassword gives a credential another hash. Its connections end.
func (s *Store) SetPassword(ctx context.Context, tenant, username, hash string) (*tenancy.Credential, error) {
	_, c, err := s.changeCredential(ctx, tenant, username, 0, setHash(hash))
	return c, err
}

func setHash(hash string) func(*tenancy.Credential) {
	return func(c *tenancy.Credential) {
		c.Hash, c.SCRAM = hash, nil // which was of the old one
		c.Generation++
	}
}

// SetSession has a credential say something else of its sessions; nil is nothing.
// Its connections go on with that. With ifRevision other than 0 the credential
// must be at that revision, else the error is Conflict with Code
// "revision_mismatch". It returns the credential as it was and is.
func (s *Store) SetSession(ctx context.Context, tenant, username string, ifRevision uint64, o *tenancy.SessionOverride) (was, now *tenancy.Credential, err error) {
	if err := o.Valid(); err != nil {
		return nil, nil, err
	}
	return s.changeCredential(ctx, tenant, username, ifRevision, func(c *tenancy.Credential) {
		c.Session = o
		c.SessionGeneration++
	})
}

func (s *Store) changeCredential(ctx context.Context, tenant, username string, ifRevision uint64, change func(*tenancy.Credential)) (was, now *tenancy.Credential, err error) {
	for {
		c, err := s.Credential(ctx, tenant, username)
		if err != nil {
			return nil, nil, err
		}
		if ifRevision != 0 && c.Revision != ifRevision {
			return nil, nil, errs.Coded(errs.Conflict, "revision_mismatch", "the credential is at revision %d, not %d", c.Revision, ifRevision)
		}
		old := *c
		change(c)
		rev, err := put(ctx, s.credentials, tenancy.CredentialKey(tenant, username), c, bus.Revision(c.Revision))
		switch {
		case err == nil:
			c.Revision = rev
			return &old, c, nil
		case !errs.Is(err, errs.Conflict):
			return nil, nil, err
		}
	}
}

// DeleteCredential is RemoveCredential without its result.
func (s *Store) DeleteCredential(ctx context.Context, tenant, username string, ifRevision uint64) error {
	_, err := s.RemoveCredential(ctx, tenant, username, ifRevision)
	return err
}

// RemoveCredential removes a credential, whose connections end, and returns it as
// it was. The error is NotFound if there is none. With ifRevision other than 0 it must be at that
// revision, else the error is Conflict with Code "revision_mismatch".
func (s *Store) RemoveCredential(ctx context.Context, tenant, username string, ifRevision uint64) (*tenancy.Credential, error) {
	for {
		c, err := s.Credential(ctx, tenant, username)
		if err != nil {
			return nil, err
		}
		if ifRevision != 0 && c.Revision != ifRevision {
			return nil, errs.Coded(errs.Conflict, "revision_mismatch", "the credential is at revision %d, not %d", c.Revision, ifRevision)
		}
		err = s.credentials.Delete(ctx, tenancy.CredentialKey(tenant, username), bus.Revision(c.Revision))
		if errs.Is(err, errs.Conflict) {
			continue
		}
		if err == nil {
			s.counts.add(tenant, -1)
		}
		return c, err
	}
}

// Credentials returns at most limit credentials of a tenant whose usernames
// come after cursor, in order, and the cursor of the next page, empty at the
// end.
func (s *Store) Credentials(ctx context.Context, tenant, cursor string, limit int) (page []tenancy.Credential, next string, err error) {
	keys, err := s.credentials.Keys(ctx, tenancy.CredentialPrefix(tenant))
	if err != nil {
		return nil, "", err
	}
	s.counts.set(tenant, int64(len(keys)), s.now())
	names := make([]string, 0, len(keys))
	for _, key := range keys {
		if _, name, ok := tenancy.ParseCredentialKey(key); ok && name > cursor {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	if len(names) > limit {
		names = names[:limit]
		next = names[limit-1]
	}
	for _, name := range names {
		c, err := s.Credential(ctx, tenant, name)
		if errs.Is(err, errs.NotFound) {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, "", err
		}
		page = append(page, *c)
	}
	return page, next, nil
}

// CountCredentials returns how many credentials a tenant has. What other
// processes add is seen within a minute.
func (s *Store) CountCredentials(ctx context.Context, tenant string) (int64, error) {
	if n, ok := s.counts.get(tenant, s.now()); ok {
		return n, nil
	}
	keys, err := s.credentials.Keys(ctx, tenancy.CredentialPrefix(tenant))
	if err != nil {
		return 0, err
	}
	s.counts.set(tenant, int64(len(keys)), s.now())
	return int64(len(keys)), nil
}

// counts remembers the number of credentials per tenant, so that adding ten
// thousand does not list ten thousand each time.
type counts struct {
	mu sync.Mutex
	m  map[string]count // guarded by mu
}

type count struct {
	n    int64
	from time.Time
}

// countLife is how long a count is believed.
const countLife = time.Minute

func (c *counts) get(tenant string, now time.Time) (int64, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.m[tenant]
	return v.n, ok && now.Sub(v.from) < countLife
}

func (c *counts) set(tenant string, n int64, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil || len(c.m) > 10_000 {
		c.m = map[string]count{}
	}
	c.m[tenant] = count{n, now}
}

func (c *counts) add(tenant string, d int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if v, ok := c.m[tenant]; ok {
		v.n += d
		c.m[tenant] = v
	}
}
