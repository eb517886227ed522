// SPDX-License-Identifier: Apache-2.0

package password

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"runtime"
	"sync/atomic"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/fair"
)

// DefaultRemembered is how many answers a Verifier remembers, at about 150
// bytes each.
const DefaultRemembered = 65536

// Verifier checks passwords and remembers the answers, right and wrong. It is
// safe for concurrent use. Make it with NewVerifier.
type Verifier struct {
	// key is random per process: what is remembered is worth nothing
	// elsewhere.
	key    [32]byte
	answer *lru.Cache[[sha256.Size]byte, bool]
	// turns are one for each core for slow hashes. Tenants take them in turn, so that whoever
	// guesses passwords of one does not keep the devices of another out.
	turns *fair.Turns
	// nobody is a slow hash of no password.
	nobody string

	hashed     atomic.Uint64
	remembered atomic.Uint64
}

// NewVerifier returns a Verifier that remembers that many answers; 0 means
// DefaultRemembered.
func NewVerifier(size int) (*Verifier, error) {
	if size <= 0 {
		size = DefaultRemembered
	}
	cores := runtime.GOMAXPROCS(0)
	v := &Verifier{turns: fair.NewTurns(cores, cores)}
	if _, err := rand.Read(v.key[:]); err != nil {
		return nil, errs.New(errs.Internal, "random bits: %w", err)
	}
	var err error
	if v.nobody, err = hashChosen(v.key[:]); err != nil {
		return nil, err
	}
	if v.answer, err = lru.New[[sha256.Size]byte, bool](size); err != nil {
		return nil, errs.New(errs.Internal, "verify cache: %w", err)
	}
	return v, nil
}

// Verify reports whether the password has that hash. of is whose turn it takes, such as a
// tenant's. id and revision name the
// credential as it is now, so that an answer is not taken for one about another
// password. The error is Unavailable if ctx ended while others were hashing. A
// wrong password takes as long as Refuse, whatever kind of hash there is.
func (v *Verifier) Verify(ctx context.Context, of, id string, revision uint64, hash string, password []byte) (bool, error) {
	if !slow(hash) {
		ok, err := matches(hash, password)
		if ok || err != nil {
			return ok, err
		}
		return false, v.Refuse(ctx, of, id, password)
	}
	return v.verify(ctx, of, id, revision, hash, password)
}

// Refuse takes as long as Verify of a wrong password, the first time and when
// it is repeated, so that a stranger does not learn which credentials exist. id
// names what was not found; of is as for Verify, and so is the error.
func (v *Verifier) Refuse(ctx context.Context, of, id string, password []byte) error {
	_, err := v.verify(ctx, of, id, 0, v.nobody, password)
	return err
}

// verify is Verify for slow hashes.
func (v *Verifier) verify(ctx context.Context, of, id string, revision uint64, hash string, password []byte) (bool, error) {
	name := v.name(id, revision, password)
	if ok, known := v.answer.Get(name); known {
		v.remembered.Add(1)
		return ok, nil
	}
	release, err := v.turn(ctx, of)
	if err != nil {
		return false, err
	}
	defer release()
	// Others may have asked the same while this one waited.
	if ok, known := v.answer.Get(name); known {
		v.remembered.Add(1)
		return ok, nil
	}
	v.hashed.Add(1)
	ok, err := matches(hash, password)
	if err == nil {
		v.answer.Add(name, ok)
	}
	return ok, err
}

// Hash hashes a chosen password; see Verify for of and the error.
func (v *Verifier) Hash(ctx context.Context, of, password string) (string, error) {
	release, err := v.turn(ctx, of)
	if err != nil {
		return "", err
	}
	defer release()
	v.hashed.Add(1)
	return hashChosen([]byte(password))
}

func (v *Verifier) turn(ctx context.Context, of string) (end func(), err error) {
	if end, err = v.turns.Take(ctx, of); err != nil {
		return nil, errs.New(errs.Unavailable, "too many passwords are waiting to be checked: %w", err)
	}
	return end, nil
}

// name is under what an answer is remembered: a keyed hash, so that no password
// can be found in memory by its plain hash.
func (v *Verifier) name(id string, revision uint64, password []byte) (out [sha256.Size]byte) {
	m := hmac.New(sha256.New, v.key[:])
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(id)))
	m.Write(n[:])
	m.Write([]byte(id))
	binary.BigEndian.PutUint64(n[:], revision)
	m.Write(n[:])
	m.Write(password)
	m.Sum(out[:0])
	return out
}

// Hashed is how many slow hashes were computed.
func (v *Verifier) Hashed() uint64 { return v.hashed.Load() }

// Remembered is how many checks needed none.
func (v *Verifier) Remembered() uint64 { return v.remembered.Load() }
