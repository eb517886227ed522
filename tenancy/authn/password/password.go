// SPDX-License-Identifier: Apache-2.0

// Package password hashes and checks passwords. A chosen password is hashed
// with argon2id, which is slow on purpose; a generated one has 160 random bits,
// for which SHA-256 is enough. A Verifier remembers what it has checked, so
// that a storm of reconnections does not hash each password again. It owns no
// goroutine: hashing happens on the caller's, one per core at a time. It knows
// no tenant and no store.
package password

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/base64"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"

	"github.com/manormq/manor/infra/errs"
)

// The cost of a chosen password: OWASP's minimum for argon2id, about 30 ms.
const (
	argonMemory  = 19 * 1024 // KiB
	argonTime    = 2
	argonThreads = 1
	argonSalt    = 16 // bytes
	argonKey     = 32 // bytes
)

// Bounds on what a stored hash may make us spend.
const (
	bcryptCostMax  = 14
	argonMemoryMax = 256 * 1024 // KiB
	argonTimeMax   = 16
)

// Bounds on what a hash that a tenant brings may make us spend at each wrong password: a
// few times what our own takes. Gateways check the passwords of all tenants, one for each
// processor at a time.
const (
	broughtCostMax    = 12
	broughtMemoryMax  = 64 * 1024 // KiB
	broughtTimeMax    = 4
	broughtThreadsMax = 4
)

const sha256Prefix = "$sha256$"

// Generate returns a password of 160 random bits, as 32 characters of lower
// case letters and digits, and its hash.
func Generate() (password, hash string, err error) {
	var bits [20]byte
	if _, err := rand.Read(bits[:]); err != nil {
		return "", "", errs.New(errs.Internal, "random bits: %w", err)
	}
	password = strings.ToLower(base32.StdEncoding.EncodeToString(bits[:]))
	return password, hashGenerated([]byte(password)), nil
}

func hashGenerated(password []byte) string {
	sum := sha256.Sum256(password)
	return sha256Prefix + base64.RawStdEncoding.EncodeToString(sum[:])
}

// hashChosen is argon2id in the PHC string format.
func hashChosen(password []byte) (string, error) {
	salt := make([]byte, argonSalt)
	if _, err := rand.Read(salt); err != nil {
		return "", errs.New(errs.Internal, "random bits: %w", err)
	}
	key := argon2.IDKey(password, salt, argonTime, argonMemory, argonThreads, argonKey)
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonTime, argonThreads,
		base64.RawStdEncoding.EncodeToString(salt), base64.RawStdEncoding.EncodeToString(key)), nil
}

// CheckHash returns an error Invalid if hash is none of the stored forms:
// $sha256$, $argon2id$ (PHC string format, at most 256 MiB and 16 passes),
// bcrypt's $2a$, $2b$, $2y$, or vmq-passwd's $6$, which is not stored as it is: see
// WrapVerneMQ.
func CheckHash(hash string) error {
	switch {
	case strings.HasPrefix(hash, sha256Prefix):
		if sum, err := base64.RawStdEncoding.DecodeString(hash[len(sha256Prefix):]); err != nil || len(sum) != sha256.Size {
			return errs.New(errs.Invalid, "expected $sha256$ and 32 bytes in base64")
		}
		return nil
	case strings.HasPrefix(hash, "$argon2id$"):
		a, err := parseArgon(hash)
		if err == nil && (a.memory > broughtMemoryMax || a.time > broughtTimeMax || a.threads > broughtThreadsMax) {
			err = errs.New(errs.Invalid, "expected an argon2id hash with at most m=%d, t=%d and p=%d; hash it again, or give the password", broughtMemoryMax, broughtTimeMax, broughtThreadsMax)
		}
		return err
	case isBcrypt(hash):
		cost, err := bcrypt.Cost([]byte(hash))
		if err != nil {
			return errs.New(errs.Invalid, "expected a bcrypt hash: %w", err)
		}
		if cost > broughtCostMax {
			return errs.New(errs.Invalid, "expected a bcrypt hash with a cost of at most %d, found %d; hash it again, or give the password", broughtCostMax, cost)
		}
		return nil
	}
	if IsVerneMQ(hash) {
		_, _, err := parseVerneMQ(hash)
		return err
	}
	return errs.New(errs.Invalid, "expected a hash that begins with $argon2id$, $2a$, $2b$, $2y$, $6$ (of vmq-passwd) or $sha256$")
}

func isBcrypt(hash string) bool {
	return len(hash) > 4 && hash[0] == '$' && hash[1] == '2' && strings.IndexByte("aby", hash[2]) >= 0 && hash[3] == '$'
}

// slow reports whether checking the hash takes long by design.
func slow(hash string) bool { return !strings.HasPrefix(hash, sha256Prefix) }

// matches reports whether the password has that hash. The error is Internal if
// the hash is not one.
func matches(hash string, password []byte) (bool, error) {
	switch {
	case strings.HasPrefix(hash, sha256Prefix):
		return subtle.ConstantTimeCompare([]byte(hashGenerated(password)), []byte(hash)) == 1, nil
	case strings.HasPrefix(hash, "$argon2id$"):
		a, err := parseArgon(hash)
		if err != nil {
			return false, errs.New(errs.Internal, "stored hash: %w", err)
		}
		key := argon2.IDKey(password, a.salt, a.time, a.memory, a.threads, uint32(len(a.key)))
		return subtle.ConstantTimeCompare(key, a.key) == 1, nil
	case isBcrypt(hash):
		if len(password) > 72 { // bcrypt has no more
			password = password[:72]
		}
		return bcrypt.CompareHashAndPassword([]byte(hash), password) == nil, nil
	case IsVerneMQ(hash):
		return matchesVerneMQ(hash, password)
	}
	return false, errs.New(errs.Internal, "stored hash: %w", CheckHash(hash))
}

type argon struct {
	memory, time uint32
	threads      uint8
	salt, key    []byte
}

func parseArgon(hash string) (argon, error) {
	bad := func(what string) (argon, error) {
		return argon{}, errs.New(errs.Invalid, "expected $argon2id$v=19$m=…,t=…,p=…$salt$key; %s", what)
	}
	parts := strings.Split(hash, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != "v=19" {
		return bad("the parts are others")
	}
	var a argon
	if n, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &a.memory, &a.time, &a.threads); n != 3 || err != nil {
		return bad("the parameters cannot be read")
	}
	if fmt.Sprintf("m=%d,t=%d,p=%d", a.memory, a.time, a.threads) != parts[3] {
		return bad("the parameters are followed by something")
	}
	if a.time < 1 || a.time > argonTimeMax || a.threads < 1 || a.memory < 8*uint32(a.threads) || a.memory > argonMemoryMax {
		return bad("the parameters are out of range")
	}
	var err error
	if a.salt, err = base64.RawStdEncoding.DecodeString(parts[4]); err != nil || len(a.salt) < 8 || len(a.salt) > 64 {
		return bad("the salt is not 8 to 64 bytes in base64")
	}
	if a.key, err = base64.RawStdEncoding.DecodeString(parts[5]); err != nil || len(a.key) < 16 || len(a.key) > 64 {
		return bad("the key is not 16 to 64 bytes in base64")
	}
	return a, nil
}
