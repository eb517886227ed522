// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"encoding/json"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
)

// MemberSession is a member who has signed in, as it is stored.
type MemberSession struct {
	ID           string    `json:"id"`
	Organization string    `json:"organization"`
	Member       string    `json:"member"`
	Generation   string    `json:"generation,omitempty"` // the member's
	Hash         string    `json:"hash"`                 // SHA-256 of the token, hexadecimal
	ExpiresAt    time.Time `json:"expires_at"`
}

// SessionLife is for how long a member stays signed in.
const SessionLife = 12 * time.Hour

const (
	tokenPrefix   = "mt_"
	sessionPrefix = "ses_"
)

// StartSession signs a member in; the token is not kept.
func (s *Store) StartSession(ctx context.Context, m *Member) (*MemberSession, string, error) {
	id := newID(sessionPrefix)
	token := secretOf(tokenPrefix, id)
	x := &MemberSession{ID: id, Organization: m.Organization, Member: m.ID, Generation: m.Generation, Hash: hashSecret(token), ExpiresAt: s.now().UTC().Add(SessionLife)}
	if _, err := put(ctx, s.sessions, id, x, bus.Absent); err != nil {
		return nil, "", err
	}
	return x, token, nil
}

// AuthenticateToken returns the session that the token belongs to, and its
// member as it is now. The error is Denied with Code "token_invalid" if there is
// none, if it has ended, or the member is gone.
func (s *Store) AuthenticateToken(ctx context.Context, token string) (*MemberSession, *Member, error) {
	denied := errs.Coded(errs.Denied, "token_invalid", "the token is not valid; sign in again")
	id, ok := idOf(tokenPrefix, sessionPrefix, token)
	if !ok {
		return nil, nil, denied
	}
	e, err := s.sessions.Get(ctx, id)
	switch {
	case errs.Is(err, errs.NotFound), errs.Is(err, errs.Invalid):
		return nil, nil, denied
	case err != nil:
		return nil, nil, err
	}
	x := &MemberSession{}
	if err := json.Unmarshal(e.Value, x); err != nil {
		return nil, nil, errs.New(errs.Internal, "stored session of a member: %w", err)
	}
	if !sameHash(token, x.Hash) || !s.now().Before(x.ExpiresAt) {
		return nil, nil, denied
	}
	m, err := s.Member(ctx, x.Organization, x.Member)
	// The id follows from the address: whoever was removed and is invited again has
	// the same one, and another generation.
	if errs.Is(err, errs.NotFound) || err == nil && (m.State != MemberActive || m.Generation != x.Generation) {
		return nil, nil, denied
	}
	return x, m, err
}

// EndSession signs out; one that is not there is no error.
func (s *Store) EndSession(ctx context.Context, id string) error {
	return s.sessions.Delete(ctx, id, bus.Any)
}
