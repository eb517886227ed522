// SPDX-License-Identifier: Apache-2.0

package password

import (
	"strings"
	"testing"

	"github.com/manormq/manor/infra/errs"
)

func TestVerneMQ(t *testing.T) {
	// python3: base64(sha512(b"s3cret" + bytes(range(12))))
	const hash = "$6$AAECAwQFBgcICQoL$9adGnvXbm0yY3NRbGOh93Sh6RlEQLWVTN8azzdKn9qLsAisk4YqJ5OyrOqbOkJxjY0YEq5DqRYWUQZgdzzbbpQ=="
	if err := CheckHash(hash); err != nil {
		t.Fatal(err)
	}
	wrapped, err := WrapVerneMQ(hash, func(inner string) (string, error) { return hashChosen([]byte(inner)) })
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(wrapped, hash[21:]) || !slow(wrapped) {
		t.Errorf("%q is stored", wrapped)
	}
	for password, want := range map[string]bool{"s3cret": true, "s3cret ": false, "": false, "S3cret": false} {
		if ok, err := matches(wrapped, []byte(password)); err != nil || ok != want {
			t.Errorf("%q: %v, %v", password, ok, err)
		}
	}
	// A hash as it comes must not be stored.
	if ok, err := matches(hash, []byte("s3cret")); ok || !errs.Is(err, errs.Internal) {
		t.Errorf("%v, %v", ok, err)
	}
	for _, bad := range []string{"$6$", "$6$AAEC", "$6$$" + hash[20:], "$6$rounds=5000$salt$hash", "$6$AAECAwQFBgcICQoL$AAEC", "$6$!$" + hash[20:], wrapped} {
		if err := CheckHash(bad); !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
