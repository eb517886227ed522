// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"encoding/json"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
)

// VerificationLife is for how long the code of a sign-up is good.
const VerificationLife = time.Hour

// Unverified is a sign-up whose address has not been shown to be its own. It
// reserves nothing. It is a plain value.
type Unverified struct {
	Organization string `json:"organization"`
	Email        string `json:"email"`
	// PasswordHash is of the person.
	PasswordHash string    `json:"password_hash"`
	Tenant       string    `json:"tenant"`
	Plan         string    `json:"plan"`
	CreatedAt    time.Time `json:"created_at"`
}

// codePrefix is what the codes of sign-ups begin with.
const codePrefix = "mv_"

// KeepUnverified keeps a sign-up until its code comes back; the code is not kept.
func (s *Store) KeepUnverified(ctx context.Context, u Unverified) (code string, expires time.Time, err error) {
	code = codePrefix + bits()
	u.CreatedAt = s.now().UTC()
	if _, err := put(ctx, s.verifications, hashSecret(code), u, bus.Absent); err != nil {
		return "", time.Time{}, err
	}
	return code, u.CreatedAt.Add(VerificationLife), nil
}

// Unverified returns the sign-up of a code. The error is Denied with Code
// "code_invalid" if there is none, or its time is over.
func (s *Store) Unverified(ctx context.Context, code string) (*Unverified, error) {
	denied := errs.Coded(errs.Denied, "code_invalid", "the code is not valid; sign up again for another one")
	e, err := s.verifications.Get(ctx, hashSecret(code))
	if errs.Is(err, errs.NotFound) {
		return nil, denied
	}
	if err != nil {
		return nil, err
	}
	u := &Unverified{}
	if err := json.Unmarshal(e.Value, u); err != nil {
		return nil, errs.New(errs.Internal, "stored sign-up: %w", err)
	}
	if s.now().Sub(u.CreatedAt) >= VerificationLife {
		return nil, denied
	}
	return u, nil
}

// ForgetUnverified ends a code.
func (s *Store) ForgetUnverified(ctx context.Context, code string) error {
	return s.verifications.Delete(ctx, hashSecret(code), bus.Any)
}
