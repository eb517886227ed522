// SPDX-License-Identifier: Apache-2.0

package managedca

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"

	"github.com/manormq/manor/infra/errs"
)

// sealKey is how many bytes the key of a Sealer has.
const sealKey = 32

// Sealer encrypts private keys for the store: who has the store and not the Sealer's
// key has nothing. It is safe for concurrent use.
type Sealer struct{ aead cipher.AEAD }

// NewSealer returns the Sealer with a key of 32 bytes.
func NewSealer(key []byte) (*Sealer, error) {
	if len(key) != sealKey {
		return nil, errs.New(errs.Invalid, "expected a key of %d bytes, found %d", sealKey, len(key))
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, errs.New(errs.Internal, "sealer: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, errs.New(errs.Internal, "sealer: %w", err)
	}
	return &Sealer{aead}, nil
}

// LoadSealer reads the key from a file, which all processes of a region share.
func LoadSealer(file string) (*Sealer, error) {
	key, err := os.ReadFile(file)
	if err != nil {
		return nil, errs.New(errs.Invalid, "expected a file with %d random bytes: %w", sealKey, err)
	}
	s, err := NewSealer(key)
	if err != nil {
		return nil, errs.New(errs.Invalid, "%s: %w", file, err)
	}
	return s, nil
}

// MakeKeyFile makes the file of a key unless it is there.
func MakeKeyFile(file string) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return errs.New(errs.Unavailable, "%w", err)
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return errs.New(errs.Unavailable, "%w", err)
	}
	key := make([]byte, sealKey)
	_, _ = rand.Read(key) // never fails
	_, err = f.Write(key)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errs.New(errs.Unavailable, "%w", err)
	}
	return nil
}

// Seal encrypts a text that is opened with the same purpose only.
func (s *Sealer) Seal(purpose string, text []byte) []byte {
	return s.aead.Seal(nil, nil, text, []byte(purpose))
}

// Open decrypts what Seal has made. The error is Internal.
func (s *Sealer) Open(purpose string, sealed []byte) ([]byte, error) {
	text, err := s.aead.Open(nil, nil, sealed, []byte(purpose))
	if err != nil {
		return nil, errs.New(errs.Internal, "a sealed key cannot be opened: it was sealed with another secrets_key_file, or changed")
	}
	return text, nil
}
