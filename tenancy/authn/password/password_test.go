// SPDX-License-Identifier: Apache-2.0

package password

import (
	"context"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/manormq/manor/infra/errs"
)

func verifier(t *testing.T, size int) *Verifier {
	t.Helper()
	v, err := NewVerifier(size)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestVerify(t *testing.T) {
	v := verifier(t, 0)
	ctx := t.Context()
	generated, generatedHash, err := Generate()
	if err != nil {
		t.Fatal(err)
	}
	if len(generated) != 32 {
		t.Errorf("generated %q", generated)
	}
	chosen, err := v.Hash(ctx, "acme", "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(chosen, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Errorf("chosen hash %q", chosen)
	}
	again, err := v.Hash(ctx, "acme", "correct horse")
	if err != nil || again == chosen {
		t.Errorf("no salt: %v", err)
	}
	bc, err := bcrypt.GenerateFromPassword([]byte("correct horse"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, hash, password string }{
		{"generated", generatedHash, generated},
		{"argon2id", chosen, "correct horse"},
		{"bcrypt 2a", string(bc), "correct horse"},
		{"bcrypt 2b", "$2b" + string(bc[3:]), "correct horse"},
		{"bcrypt 2y", "$2y" + string(bc[3:]), "correct horse"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := CheckHash(c.hash); err != nil {
				t.Error(err)
			}
			for range 2 { // the second time from memory
				if ok, err := v.Verify(ctx, "acme", c.name, 1, c.hash, []byte(c.password)); err != nil || !ok {
					t.Errorf("right password: %v %v", ok, err)
				}
				for _, wrong := range []string{"", c.password + "x", "wrong", c.hash} {
					if ok, err := v.Verify(ctx, "acme", c.name, 1, c.hash, []byte(wrong)); err != nil || ok {
						t.Errorf("password %q: %v %v", wrong, ok, err)
					}
				}
			}
		})
	}
}

func TestCheckHash_Refuses(t *testing.T) {
	for _, h := range []string{
		"", "secret", "$1$abc", "$sha256$", "$sha256$AAAA", "$2x$10$aaaa", "$2a$", "$argon2i$v=19$m=8,t=1,p=1$AAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA",
		"$argon2id$v=19$m=99999999,t=1,p=1$AAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA", "$argon2id$v=19$m=64,t=0,p=1$AAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA",
		"$argon2id$v=19$m=64,t=1,p=1x$AAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA", "$argon2id$v=19$m=64,t=1,p=1$$", "$argon2id$",
		"$2a$20$" + strings.Repeat("a", 53), "$2a$13$" + strings.Repeat("a", 53), // more than what a tenant may have us spend
		"$argon2id$v=19$m=262144,t=1,p=1$AAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA", "$argon2id$v=19$m=64,t=16,p=1$AAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA",
		"$argon2id$v=19$m=64,t=1,p=8$AAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA",
	} {
		if err := CheckHash(h); !errs.Is(err, errs.Invalid) {
			t.Errorf("%q: %v, want Invalid", h, err)
		}
	}
}

// TestRefuse holds that what does not exist costs the same as a wrong password
// of any kind, the first time and when it is repeated.
func TestRefuse(t *testing.T) {
	v := verifier(t, 0)
	ctx := t.Context()
	_, generated, err := Generate()
	if err != nil {
		t.Fatal(err)
	}
	chosen, err := v.Hash(ctx, "acme", "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	wrong := func(hash string) func(id, password string) error {
		return func(id, password string) error {
			ok, err := v.Verify(ctx, "acme", id, 1, hash, []byte(password))
			if ok {
				t.Error("a wrong password is right")
			}
			return err
		}
	}
	for name, refuse := range map[string]func(id, password string) error{
		"nobody":    func(id, password string) error { return v.Refuse(ctx, "acme", id, []byte(password)) },
		"generated": wrong(generated),
		"chosen":    wrong(chosen),
	} {
		for _, c := range []struct {
			id, password string
			hashed       uint64
		}{{"a", "x", 1}, {"a", "x", 0}, {"a", "y", 1}, {"b", "x", 1}} {
			before := v.Hashed()
			if err := refuse(name+c.id, c.password); err != nil {
				t.Fatal(err)
			}
			if got := v.Hashed() - before; got != c.hashed {
				t.Errorf("%s: %s with %s took %d hashes, want %d", name, c.id, c.password, got, c.hashed)
			}
		}
	}
}

// TestVerifier_Storm holds that ten thousand reconnections with one password
// hash once, and that a new password is not taken for the old one.
func TestVerifier_Storm(t *testing.T) {
	v := verifier(t, 0)
	hash, err := v.Hash(t.Context(), "acme", "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	before := v.Hashed()
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			for range 200 {
				if ok, err := v.Verify(t.Context(), "acme", "cred_1", 1, hash, []byte("correct horse")); err != nil || !ok {
					t.Errorf("%v %v", ok, err)
					return
				}
			}
		})
	}
	wg.Wait()
	// Each core may have been hashing when the first answer came.
	if n := v.Hashed() - before; n > uint64(runtime.GOMAXPROCS(0)) {
		t.Errorf("%d hashes", n)
	}
	other, err := v.Hash(t.Context(), "acme", "battery staple")
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := v.Verify(t.Context(), "acme", "cred_1", 2, other, []byte("correct horse")); err != nil || ok {
		t.Errorf("the old password after a change: %v %v", ok, err)
	}
}

func TestVerifier_GivesUpWithContext(t *testing.T) {
	v := verifier(t, 0)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := v.Hash(ctx, "acme", "x"); !errs.Is(err, errs.Unavailable) {
		t.Errorf("got %v, want Unavailable", err)
	}
}

// Who guesses many passwords of one tenant does not keep the devices of another out: that one
// waits for a turn, not for all who wait.
func TestVerifier_TenantsInTurn(t *testing.T) {
	v := verifier(t, 0)
	var guessing sync.WaitGroup
	const guesses = 30
	for i := range guesses {
		guessing.Go(func() {
			if err := v.Refuse(t.Context(), "evil", "no evil "+strconv.Itoa(i), []byte("guess")); err != nil {
				t.Error(err)
			}
		})
	}
	for v.Hashed() == 0 {
		runtime.Gosched()
	}
	if err := v.Refuse(t.Context(), "acme", "no acme x", []byte("guess")); err != nil {
		t.Error(err)
	}
	if n, most := v.Hashed(), uint64(guesses); n >= most {
		t.Errorf("acme had its turn behind %d of %d of another tenant", n, most)
	}
	guessing.Wait()
}

func TestVerifier_Bounded(t *testing.T) {
	v := verifier(t, 2)
	bc, err := bcrypt.GenerateFromPassword([]byte("x"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		if _, err := v.Verify(t.Context(), "acme", "id", uint64(i), string(bc), []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if n := v.answer.Len(); n != 2 {
		t.Errorf("%d answers remembered, want 2", n)
	}
}

// FuzzMatches holds that no stored hash, however broken, ends the process.
func FuzzMatches(f *testing.F) {
	f.Add("$argon2id$v=19$m=64,t=1,p=1$AAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA", "x")
	f.Add("$2a$04$", "x")
	f.Add("$sha256$AAAA", "x")
	f.Fuzz(func(t *testing.T, hash, password string) {
		if strings.HasPrefix(hash, "$argon2id$") {
			if a, err := parseArgon(hash); err == nil && (a.memory > 1024 || a.time > 2) {
				return // valid and slow
			}
		}
		if isBcrypt(hash) {
			if cost, err := bcrypt.Cost([]byte(hash)); err == nil && cost > 5 {
				return
			}
		}
		if ok, err := matches(hash, []byte(password)); ok && err != nil {
			t.Errorf("%q: matched with error %v", hash, err)
		}
	})
}
