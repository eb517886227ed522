// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// Source is what became of a file that a tenant's credentials or policy come from. It is a
// plain value.
type Source struct {
	Tenant string `json:"tenant"`
	// Kind is tenancy.SourcePasswd or tenancy.SourceACL.
	Kind string `json:"kind"`
	// Mark tells what was applied last from anything else: a slow hash of its digest,
	// since from the digest itself the hashes in a short file could be guessed quickly.
	Mark string `json:"mark,omitempty"`
	// FolderMark is that of what was applied last from the operator's folder. It is another
	// one than Mark where the tenant has sent a file since, which holds until the one in the
	// folder changes.
	FolderMark string    `json:"folder_mark,omitempty"`
	AppliedAt  time.Time `json:"applied_at,omitzero"`
	// Users is how many it has, and Skipped how many of them are not its own, since the
	// API had made them before.
	Users   int `json:"users,omitempty"`
	Skipped int `json:"skipped,omitempty"`
	// Revision is that of the policy that was made of it.
	Revision uint64 `json:"revision,omitempty"`
	// Problem is why what the file has now does not hold, empty if it does.
	Problem   string    `json:"problem,omitempty"`
	ProblemAt time.Time `json:"problem_at,omitzero"`
}

func (o *Source) key() string { return o.Tenant + "." + o.Kind }

// Source returns what became of a file; of one that nothing became of yet it has Tenant
// and Kind only.
func (s *Store) Source(ctx context.Context, tenant, kind string) (*Source, error) {
	o := &Source{Tenant: tenant, Kind: kind}
	e, err := s.sources.Get(ctx, o.key())
	if errs.Is(err, errs.NotFound) {
		return o, nil
	}
	if err == nil {
		err = json.Unmarshal(e.Value, o)
	}
	return o, err
}

// Sources lists a tenant's, by kind.
func (s *Store) Sources(ctx context.Context, tenant string) ([]Source, error) {
	entries, _, err := bus.List(ctx, s.sources, tenant+".", 10)
	if err != nil {
		return nil, err
	}
	all := make([]Source, len(entries))
	for i, e := range entries {
		if err := json.Unmarshal(e.Value, &all[i]); err != nil {
			return nil, errs.New(errs.Internal, "stored source: %w", err)
		}
	}
	slices.SortFunc(all, func(a, b Source) int { return strings.Compare(a.Kind, b.Kind) })
	return all, nil
}

// PutSource stores it. Of several processes the last one is right.
func (s *Store) PutSource(ctx context.Context, o *Source) error {
	_, err := put(ctx, s.sources, o.key(), o, bus.Any)
	return err
}

// AllCredentials returns all credentials of a tenant, by username.
func (s *Store) AllCredentials(ctx context.Context, tenant string) (map[string]tenancy.Credential, error) {
	all := map[string]tenancy.Credential{}
	entries, _, err := bus.List(ctx, s.credentials, tenancy.CredentialPrefix(tenant), credentialsMost)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		c, err := tenancy.DecodeCredential(e.Value, uint64(e.Revision))
		if err != nil {
			return nil, err
		}
		all[c.Username] = c
	}
	return all, nil
}

// credentialsMost is more than any plan has.
const credentialsMost = 10_000_000

// RemoveSourced removes a credential, as RemoveCredential does, if it comes from that kind of file.
// It reports whether it did: another one may have its name meanwhile.
func (s *Store) RemoveSourced(ctx context.Context, tenant, username, source string) (ok bool, err error) {
	err = s.sourced(ctx, tenant, username, source, func(c *tenancy.Credential) error {
		err := s.DeleteCredential(ctx, tenant, username, c.Revision)
		ok = err == nil
		return err
	})
	return ok, err
}

// SetSourcedPassword gives a credential another hash, as SetPassword does, if it comes from that
// kind of file. It reports whether it did.
func (s *Store) SetSourcedPassword(ctx context.Context, tenant, username, source, hash string) (ok bool, err error) {
	err = s.sourced(ctx, tenant, username, source, func(c *tenancy.Credential) error {
		_, _, err := s.changeCredential(ctx, tenant, username, c.Revision, setHash(hash))
		ok = err == nil
		return err
	})
	return ok, err
}

// sourced does something to a credential if it comes from that kind of file, and again where it
// has changed meanwhile.
func (s *Store) sourced(ctx context.Context, tenant, username, source string, do func(*tenancy.Credential) error) error {
	for {
		c, err := s.Credential(ctx, tenant, username)
		if err == nil && c.Source == source {
			err = do(c)
		}
		switch {
		case errs.Is(err, errs.NotFound):
			return nil
		case !errs.Is(err, errs.Conflict):
			return err
		}
	}
}
