// SPDX-License-Identifier: Apache-2.0

package password

import (
	"crypto/sha512"
	"encoding/base64"
	"strings"

	"github.com/manormq/manor/infra/errs"
)

// VerneMQ's vmq-passwd, as mosquitto_passwd did before its version 2, writes
// $6$SALT$HASH: SHA-512 of the password and the salt, both in base64. That is
// computed in less than a microsecond, so that who gets hold of such a hash can try
// billions of passwords. What is stored is $6$SALT and an argon2id hash of HASH.

const vernemqPrefix = "$6$"

// IsVerneMQ reports whether the hash has the form of vmq-passwd's, wrapped or not.
func IsVerneMQ(hash string) bool { return strings.HasPrefix(hash, vernemqPrefix) }

// parseVerneMQ returns the parts of a hash that is not wrapped.
func parseVerneMQ(hash string) (salt, sum string, err error) {
	salt, sum, ok := strings.Cut(strings.TrimPrefix(hash, vernemqPrefix), "$")
	s, err := base64.StdEncoding.DecodeString(salt)
	h, err2 := base64.StdEncoding.DecodeString(sum)
	if !ok || err != nil || err2 != nil || len(s) == 0 || len(s) > 64 || len(h) != sha512.Size {
		return "", "", errs.New(errs.Invalid, "expected $6$, a salt and 64 bytes of SHA-512, both in base64, as vmq-passwd writes it (crypt's $6$ is another one)")
	}
	return salt, sum, nil
}

// WrapVerneMQ hashes a hash of vmq-passwd once more; hash makes an argon2id hash, which
// takes its time. The error is Invalid, or that of hash.
func WrapVerneMQ(vernemq string, hash func(inner string) (string, error)) (string, error) {
	salt, sum, err := parseVerneMQ(vernemq)
	if err != nil {
		return "", err
	}
	wrapped, err := hash(sum)
	if err != nil {
		return "", err
	}
	return vernemqPrefix + salt + wrapped, nil
}

// IsWrapOf reports whether stored, which is a stored hash of any kind, was made of the
// hash of vmq-passwd. It takes as long as WrapVerneMQ if they have the salt in common. The
// error is Invalid, or Internal for a stored one.
func IsWrapOf(stored, vernemq string) (bool, error) {
	salt, sum, err := parseVerneMQ(vernemq)
	if err != nil {
		return false, err
	}
	wrapped, ok := strings.CutPrefix(stored, vernemqPrefix+salt)
	if !ok || !strings.HasPrefix(wrapped, "$argon2id$") {
		return false, nil
	}
	return matches(wrapped, []byte(sum))
}

// matchesVerneMQ is matches of what WrapVerneMQ has made.
func matchesVerneMQ(hash string, password []byte) (bool, error) {
	text, _, ok := strings.Cut(strings.TrimPrefix(hash, vernemqPrefix), "$")
	salt, err := base64.StdEncoding.DecodeString(text)
	wrapped := strings.TrimPrefix(hash, vernemqPrefix+text)
	if !ok || err != nil || !strings.HasPrefix(wrapped, "$argon2id$") {
		return false, errs.New(errs.Internal, "stored hash: expected $6$, a salt and an argon2id hash")
	}
	h := sha512.New()
	h.Write(password)
	h.Write(salt)
	return matches(wrapped, []byte(base64.StdEncoding.EncodeToString(h.Sum(nil))))
}
