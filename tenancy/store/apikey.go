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
	"strings"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
)

// APIKey is a key of an organization as it is stored.
type APIKey struct {
	ID           string    `json:"id"`
	Organization string    `json:"organization"`
	Hash         string    `json:"hash"` // SHA-256 of the secret, hexadecimal
	CreatedAt    time.Time `json:"created_at"`
}

// A secret is "mk_", the 26 characters of the id, and 160 random bits in
// base32: the id finds the record, the bits prove it.
const (
	secretPrefix = "mk_"
	keyPrefix    = "key_"
	idLength     = 26
	secretLength = len(secretPrefix) + idLength + 32
)

// newAPIKey returns a key, which is not stored yet, and its secret.
func (s *Store) newAPIKey(organization string) (APIKey, string, error) {
	var bits [20]byte
	if _, err := rand.Read(bits[:]); err != nil {
		return APIKey{}, "", errs.New(errs.Internal, "random bits: %w", err)
	}
	id := newID(keyPrefix)
	secret := secretPrefix + id[len(keyPrefix):] + strings.ToLower(base32.StdEncoding.EncodeToString(bits[:]))
	return APIKey{ID: id, Organization: organization, Hash: hashSecret(secret), CreatedAt: s.now().UTC()}, secret, nil
}

// hashSecret hashes once: 160 random bits cannot be guessed, so slowness would
// only slow us.
func hashSecret(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// CreateAPIKey adds a key to an organization; the secret is not kept.
func (s *Store) CreateAPIKey(ctx context.Context, organization string) (*APIKey, string, error) {
	k, secret, err := s.newAPIKey(organization)
	if err != nil {
		return nil, "", err
	}
	if _, err := put(ctx, s.apiKeys, k.ID, k, bus.Absent); err != nil {
		return nil, "", err
	}
	return &k, secret, nil
}

// AuthenticateKey returns the key that the secret belongs to. The error is
// Denied if there is none.
func (s *Store) AuthenticateKey(ctx context.Context, secret string) (*APIKey, error) {
	denied := errs.Coded(errs.Denied, "api_key_invalid", "the API key is not valid")
	if len(secret) != secretLength || !strings.HasPrefix(secret, secretPrefix) {
		return nil, denied
	}
	e, err := s.apiKeys.Get(ctx, keyPrefix+secret[len(secretPrefix):len(secretPrefix)+idLength])
	switch {
	case errs.Is(err, errs.NotFound), errs.Is(err, errs.Invalid):
		return nil, denied
	case err != nil:
		return nil, err
	}
	k := &APIKey{}
	if err := json.Unmarshal(e.Value, k); err != nil {
		return nil, errs.New(errs.Internal, "stored API key: %w", err)
	}
	if subtle.ConstantTimeCompare([]byte(hashSecret(secret)), []byte(k.Hash)) != 1 {
		return nil, denied
	}
	return k, nil
}

// DeleteAPIKey removes a key; one that is not there is no error.
func (s *Store) DeleteAPIKey(ctx context.Context, id string) error {
	return s.apiKeys.Delete(ctx, id, bus.Any)
}
