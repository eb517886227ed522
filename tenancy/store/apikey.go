// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// APIKey is a key of an organization as it is stored.
type APIKey struct {
	ID           string `json:"id"`
	Organization string `json:"organization"`
	Name         string `json:"name,omitempty"`
	tenancy.Access
	Hash string `json:"hash"` // SHA-256 of the secret, hexadecimal
	// Previous is the secret before the last rotation, or nil.
	Previous *PreviousSecret `json:"previous,omitempty"`
	// ExpiresAt is when the key ends; zero is never.
	ExpiresAt time.Time `json:"expires_at,omitzero"`
	CreatedAt time.Time `json:"created_at"`
	// CreatedBy is the id of the key or member that made it; empty for that of
	// the sign-up.
	CreatedBy string `json:"created_by,omitempty"`
	// Revision is the bucket's; it is not part of the value.
	Revision uint64 `json:"-"`
}

// PreviousSecret is a secret that was replaced and still holds for a while.
type PreviousSecret struct {
	Hash       string    `json:"hash"`
	ValidUntil time.Time `json:"valid_until"`
}

// OverlapMax is the longest time for which an old secret holds beside the new
// one.
const OverlapMax = 30 * 24 * time.Hour

// NewKey is what a key is made with. All of it was checked.
type NewKey struct {
	Name string
	tenancy.Access
	ExpiresAt time.Time
	CreatedBy string
}

// A secret is a prefix, the 26 characters of the id, and 160 random bits in
// base32: the id finds the record, the bits prove it.
const (
	secretPrefix = "mk_"
	keyPrefix    = "key_"
	idLength     = 26
	bitsLength   = 32
)

// bits returns 160 random bits as 32 characters.
func bits() string {
	var b [20]byte
	_, _ = rand.Read(b[:]) // never fails
	return strings.ToLower(base32.StdEncoding.EncodeToString(b[:]))
}

// secretOf makes a secret for the record of that id.
func secretOf(prefix, id string) string { return prefix + id[len(id)-idLength:] + bits() }

// idOf is the id of the record that a secret of that prefix names.
func idOf(prefix, idPrefix, secret string) (string, bool) {
	rest, ok := strings.CutPrefix(secret, prefix)
	if !ok || len(rest) != idLength+bitsLength {
		return "", false
	}
	return idPrefix + rest[:idLength], true
}

// hashSecret hashes once: 160 random bits cannot be guessed, so slowness would
// only slow us.
func hashSecret(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

func sameHash(secret, hash string) bool {
	return subtle.ConstantTimeCompare([]byte(hashSecret(secret)), []byte(hash)) == 1
}

// newAPIKey returns a key, which is not stored yet, and its secret.
func (s *Store) newAPIKey(organization string, n NewKey) (APIKey, string) {
	id := newID(keyPrefix)
	secret := secretOf(secretPrefix, id)
	return APIKey{
		ID: id, Organization: organization, Name: n.Name, Access: n.Access, Hash: hashSecret(secret),
		ExpiresAt: n.ExpiresAt, CreatedAt: s.now().UTC(), CreatedBy: n.CreatedBy,
	}, secret
}

// keyIndex is the key under which an organization finds one of its API keys.
func keyIndex(organization, id string) string { return organization + "." + id }

// putAPIKey stores a new key. Its index comes first: alone it is harmless.
func (s *Store) putAPIKey(ctx context.Context, k *APIKey) error {
	if _, err := s.apiKeys.Put(ctx, keyIndex(k.Organization, k.ID), []byte("{}"), bus.Any); err != nil {
		return err
	}
	var err error
	k.Revision, err = put(ctx, s.apiKeys, k.ID, k, bus.Absent)
	return err
}

// AddAPIKey adds a key to an organization; the secret is not kept. The error is
// tenancy.ExceededError beyond the quota api_keys.
func (s *Store) AddAPIKey(ctx context.Context, organization string, n NewKey) (*APIKey, string, error) {
	if err := s.CheckAPIKeys(ctx, organization); err != nil {
		return nil, "", err
	}
	k, secret := s.newAPIKey(organization, n)
	if err := s.putAPIKey(ctx, &k); err != nil {
		return nil, "", err
	}
	return &k, secret, nil
}

// CheckAPIKeys returns the error that AddAPIKey would because of the quota.
func (s *Store) CheckAPIKeys(ctx context.Context, organization string) error {
	keys, err := s.apiKeys.Keys(ctx, organization+".")
	if err != nil {
		return err
	}
	return s.checkQuota(ctx, organization, "api_keys", int64(len(keys)))
}

// CreateAPIKey adds a key that may do everything, whatever the quota; the secret
// is not kept.
func (s *Store) CreateAPIKey(ctx context.Context, organization string) (*APIKey, string, error) {
	k, secret := s.newAPIKey(organization, NewKey{Access: tenancy.Access{Role: tenancy.RoleOwner}})
	if err := s.putAPIKey(ctx, &k); err != nil {
		return nil, "", err
	}
	return &k, secret, nil
}

func decodeAPIKey(e bus.Entry) (*APIKey, error) {
	k := &APIKey{Revision: uint64(e.Revision)}
	if err := json.Unmarshal(e.Value, k); err != nil {
		return nil, errs.New(errs.Internal, "stored API key: %w", err)
	}
	// Keys from before there were roles may do everything.
	if k.Role == "" && len(k.Permissions) == 0 {
		k.Role = tenancy.RoleOwner
	}
	return k, nil
}

// AuthenticateKey returns the key that the secret belongs to. The error is
// Denied with Code "api_key_invalid" if there is none, and "api_key_expired" if
// it, or that secret of it, has ended.
func (s *Store) AuthenticateKey(ctx context.Context, secret string) (*APIKey, error) {
	denied := errs.Coded(errs.Denied, "api_key_invalid", "the API key is not valid")
	id, ok := idOf(secretPrefix, keyPrefix, secret)
	if !ok {
		return nil, denied
	}
	e, err := s.apiKeys.Get(ctx, id)
	switch {
	case errs.Is(err, errs.NotFound), errs.Is(err, errs.Invalid):
		return nil, denied
	case err != nil:
		return nil, err
	}
	k, err := decodeAPIKey(e)
	if err != nil {
		return nil, err
	}
	expired := errs.Coded(errs.Denied, "api_key_expired", "the API key has expired")
	switch now := s.now(); {
	case sameHash(secret, k.Hash):
	case k.Previous == nil || !sameHash(secret, k.Previous.Hash):
		return nil, denied
	case !now.Before(k.Previous.ValidUntil):
		return nil, expired
	}
	if !k.ExpiresAt.IsZero() && !s.now().Before(k.ExpiresAt) {
		return nil, expired
	}
	return k, nil
}

// APIKey returns a key of an organization, or an error NotFound.
func (s *Store) APIKey(ctx context.Context, organization, id string) (*APIKey, error) {
	notFound := func(err error) error {
		return named(err, "api_key_not_found", "there is no API key %q", id)
	}
	if !strings.HasPrefix(id, keyPrefix) {
		return nil, notFound(errs.New(errs.NotFound, "no id"))
	}
	e, err := s.apiKeys.Get(ctx, id)
	if err != nil {
		return nil, notFound(err)
	}
	k, err := decodeAPIKey(e)
	if err == nil && k.Organization != organization {
		err = notFound(errs.New(errs.NotFound, "of another organization"))
	}
	if err != nil {
		return nil, err
	}
	return k, nil
}

// APIKeys returns at most limit keys of an organization whose ids come after
// cursor, the oldest first, and the cursor of the next page, empty at the end.
func (s *Store) APIKeys(ctx context.Context, organization, cursor string, limit int) (page []APIKey, next string, err error) {
	ids, next, err := idsAfter(ctx, s.apiKeys, organization, cursor, limit)
	if err != nil {
		return nil, "", err
	}
	for _, id := range ids {
		k, err := s.APIKey(ctx, organization, id)
		if errs.Is(err, errs.NotFound) {
			continue // deleted meanwhile, or never made
		}
		if err != nil {
			return nil, "", err
		}
		page = append(page, *k)
	}
	return page, next, nil
}

// idsAfter returns a page of the keys below organization, without it.
func idsAfter(ctx context.Context, b bus.Bucket, organization, cursor string, limit int) (ids []string, next string, err error) {
	keys, err := b.Keys(ctx, organization+".")
	if err != nil {
		return nil, "", err
	}
	for _, key := range keys {
		if id := key[len(organization)+1:]; id > cursor {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	if len(ids) > limit {
		ids = ids[:limit]
		next = ids[limit-1]
	}
	return ids, next, nil
}

// ChangeAPIKey changes a key: change gets the present one and may alter it, or
// return an error that ends it; see UpdateTenant for ifRevision. It returns the
// key as it was and is.
func (s *Store) ChangeAPIKey(ctx context.Context, organization, id string, ifRevision uint64, change func(*APIKey) error) (was, now *APIKey, err error) {
	for {
		k, err := s.APIKey(ctx, organization, id)
		if err != nil {
			return nil, nil, err
		}
		if ifRevision != 0 && k.Revision != ifRevision {
			return nil, nil, errs.Coded(errs.Conflict, "revision_mismatch", "the API key %s is at revision %d, not %d", id, k.Revision, ifRevision)
		}
		old := *k
		if err := change(k); err != nil {
			return nil, nil, err
		}
		k.Revision, err = put(ctx, s.apiKeys, id, k, bus.Revision(old.Revision))
		if err == nil || !errs.Is(err, errs.Conflict) {
			return &old, k, err
		}
	}
}

// RotateAPIKey gives a key a new secret, which is not kept; the old one holds for
// overlap more, at most OverlapMax. One that was rotated away before ends now.
func (s *Store) RotateAPIKey(ctx context.Context, organization, id string, ifRevision uint64, overlap time.Duration) (was, now *APIKey, secret string, err error) {
	was, now, err = s.ChangeAPIKey(ctx, organization, id, ifRevision, func(k *APIKey) error {
		k.Previous = nil
		if overlap > 0 {
			k.Previous = &PreviousSecret{Hash: k.Hash, ValidUntil: s.now().UTC().Add(min(overlap, OverlapMax))}
		}
		secret = secretOf(secretPrefix, id)
		k.Hash = hashSecret(secret)
		return nil
	})
	return was, now, secret, err
}

// RemoveAPIKey removes a key of an organization and returns it as it was; see
// UpdateTenant for ifRevision. The error is NotFound if there is none.
func (s *Store) RemoveAPIKey(ctx context.Context, organization, id string, ifRevision uint64) (*APIKey, error) {
	for {
		k, err := s.APIKey(ctx, organization, id)
		if err != nil {
			return nil, err
		}
		if ifRevision != 0 && k.Revision != ifRevision {
			return nil, errs.Coded(errs.Conflict, "revision_mismatch", "the API key %s is at revision %d, not %d", id, k.Revision, ifRevision)
		}
		err = s.apiKeys.Delete(ctx, id, bus.Revision(k.Revision))
		if errs.Is(err, errs.Conflict) {
			continue
		}
		if err != nil {
			return nil, err
		}
		s.unlistAPIKey(ctx, organization, id)
		return k, nil
	}
}

// unlistAPIKey removes what lists a key that is gone; what stays lists nothing.
func (s *Store) unlistAPIKey(ctx context.Context, organization, id string) {
	for _, err := range []error{s.apiKeys.Delete(ctx, keyIndex(organization, id), bus.Any), s.keyUses.Delete(ctx, id, bus.Any)} {
		if err != nil {
			s.log.Warn("entry of a deleted API key not removed", "key", id, "error", err)
		}
	}
}

// DeleteAPIKey removes a key; one that is not there is no error.
func (s *Store) DeleteAPIKey(ctx context.Context, id string) error {
	e, err := s.apiKeys.Get(ctx, id)
	if errs.Is(err, errs.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	k, err := decodeAPIKey(e)
	if err != nil {
		return err
	}
	_, err = s.RemoveAPIKey(ctx, k.Organization, id, 0)
	if errs.Is(err, errs.NotFound) {
		return nil
	}
	return err
}
