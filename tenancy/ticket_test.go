// SPDX-License-Identifier: Apache-2.0

package tenancy_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

func TestTicketSecrets(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var s *tenancy.TicketSecrets
	if !s.Due(now) || !s.Stale(now) {
		t.Error("no secrets are not due")
	}
	for i := range 5 {
		s = s.With([32]byte{byte(i)}, now.Add(time.Duration(i)*tenancy.TicketsEvery))
	}
	now = s.Secrets[0].CreatedAt
	if len(s.Secrets) != 3 || s.Secrets[0].Secret[0] != 4 || s.Secrets[2].Secret[0] != 2 {
		t.Errorf("got %+v", s)
	}
	for after, want := range map[time.Duration][2]bool{0: {}, 8*time.Hour - 1: {}, 8 * time.Hour: {true, false}, 24*time.Hour - 1: {true, false}, 24 * time.Hour: {true, true}} {
		if got := [2]bool{s.Due(now.Add(after)), s.Stale(now.Add(after))}; got != want {
			t.Errorf("after %v: due, stale %v", after, got)
		}
	}
	seen := map[[32]byte]bool{}
	for _, purpose := range []string{"", "a", "b"} {
		keys, err := s.Keys(purpose)
		if err != nil || len(keys) != 3 {
			t.Fatalf("%d keys, %v", len(keys), err)
		}
		for _, k := range keys {
			if seen[k] {
				t.Error("two keys are the same")
			}
			seen[k] = true
		}
	}
	// What another process reads gives the same keys.
	value, err := s.Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	read, err := tenancy.DecodeTickets(value, nil)
	if err != nil {
		t.Fatal(err)
	}
	if keys, err := read.Keys("a"); err != nil || !seen[keys[0]] {
		t.Errorf("other keys: %v", err)
	}
	seal := func(purpose string, text []byte) []byte { return append([]byte(purpose), text...) }
	open := func(purpose string, sealed []byte) ([]byte, error) {
		return bytes.TrimPrefix(sealed, []byte(purpose)), nil
	}
	if value, err = s.Encode(seal); err != nil || bytes.Contains(value, []byte("secrets")) {
		t.Errorf("sealed: %s %v", value, err)
	}
	if read, err = tenancy.DecodeTickets(value, open); err != nil || !read.Sealed || len(read.Secrets) != 3 {
		t.Errorf("opened: %+v %v", read, err)
	}
	denied := func(string, []byte) ([]byte, error) { return nil, errs.New(errs.Unavailable, "no key") }
	if _, err := tenancy.DecodeTickets(value, denied); !errs.Is(err, errs.Unavailable) {
		t.Errorf("without the key: %v", err)
	}
	for _, bad := range []string{`x`, `{}`, `{"secrets":[{"secret":"AA=="}]}`} {
		if _, err := tenancy.DecodeTickets([]byte(bad), nil); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}
