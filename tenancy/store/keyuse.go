// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"encoding/json"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
)

// KeyUse is when an API key was used, and from where.
type KeyUse struct {
	At      time.Time `json:"at"`
	Address string    `json:"address"`
}

// useEvery is how much time is between two writes of a key's use.
const useEvery = time.Minute

// UseKey notes that a key is used from that address, at most once a minute over
// all processes. What cannot be noted is logged.
func (s *Store) UseKey(ctx context.Context, id, address string) {
	if !s.uses.due(id, s.now()) {
		return
	}
	if err := s.useKey(ctx, id, address); err != nil {
		s.log.Warn("use of an API key not noted", "key", id, "error", err)
	}
}

func (s *Store) useKey(ctx context.Context, id, address string) error {
	old, at, err := s.keyUse(ctx, id)
	if err != nil {
		return err
	}
	now := s.now().UTC()
	if now.Sub(old.At) < useEvery {
		return nil // another process was here
	}
	_, err = put(ctx, s.keyUses, id, KeyUse{At: now, Address: address}, at)
	if errs.Is(err, errs.Conflict) {
		return nil
	}
	return err
}

// LastUse returns when a key was last used, to the minute; the zero value if
// never.
func (s *Store) LastUse(ctx context.Context, id string) (KeyUse, error) {
	u, _, err := s.keyUse(ctx, id)
	return u, err
}

func (s *Store) keyUse(ctx context.Context, id string) (u KeyUse, at bus.Revision, err error) {
	e, err := s.keyUses.Get(ctx, id)
	if errs.Is(err, errs.NotFound) {
		return u, bus.Absent, nil
	}
	if err != nil {
		return u, 0, err
	}
	if err := json.Unmarshal(e.Value, &u); err != nil {
		return u, 0, errs.New(errs.Internal, "stored use of an API key: %w", err)
	}
	return u, e.Revision, nil
}

// uses is when this process has last looked at the use of a key.
type uses struct{ counts }

// due reports whether it is time to look again, and takes note that it is done.
func (u *uses) due(id string, now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if c, ok := u.m[id]; ok && now.Sub(c.from) < useEvery {
		return false
	}
	if u.m == nil || len(u.m) > 10_000 {
		u.m = map[string]count{}
	}
	u.m[id] = count{from: now}
	return true
}
