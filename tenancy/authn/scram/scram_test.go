// SPDX-License-Identifier: Apache-2.0

package scram_test

import (
	"errors"
	"strings"
	"testing"

	xdg "github.com/xdg-go/scram"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/authn/scram"
)

// exchange lets a client of the library authenticate.
func exchange(t *testing.T, s *scram.Server, stored map[string]*tenancy.SCRAM, user, password string) error {
	t.Helper()
	c, err := xdg.SHA256.NewClient(user, password, "")
	if err != nil {
		t.Fatal(err)
	}
	client := c.NewConversation()
	e, err := s.Begin(func(name string) (*tenancy.SCRAM, error) { return stored[name], nil })
	if err != nil {
		t.Fatal(err)
	}
	answer, done := []byte(nil), false
	for range 2 {
		text, err := client.Step(string(answer))
		if err != nil {
			t.Fatal(err)
		}
		if answer, done, err = e.Step([]byte(text)); err != nil {
			return err
		}
	}
	if _, err := client.Step(string(answer)); err != nil || !done || !client.Valid() {
		t.Fatalf("the client does not believe the server: %v, done %v", err, done)
	}
	return nil
}

func TestExchange(t *testing.T) {
	s, err := scram.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	stored := map[string]*tenancy.SCRAM{}
	for user, password := range map[string]string{"a": "secret", "ü,=": "pass wörd"} {
		if stored[user], err = scram.Derive(password, scram.IterationsGenerated); err != nil {
			t.Fatal(err)
		}
		if err := exchange(t, s, stored, user, password); err != nil {
			t.Errorf("%s: %v", user, err)
		}
	}
	for _, user := range []string{"a", "nobody"} {
		if err := exchange(t, s, stored, user, "wrong"); !errs.Is(err, errs.Denied) {
			t.Errorf("%s with a wrong password: %v", user, err)
		}
	}
}

// Who does not exist has a salt all the same, and always the same one.
func TestExchange_Nobody(t *testing.T) {
	s, err := scram.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	first := func(user string) string {
		e, err := s.Begin(func(string) (*tenancy.SCRAM, error) { return nil, nil })
		if err != nil {
			t.Fatal(err)
		}
		answer, _, err := e.Step([]byte("n,,n=" + user + ",r=nonce"))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(answer), ",")
		return rest
	}
	one, again, other := first("x"), first("x"), first("y")
	if one != again || one == other {
		t.Errorf("salts %q %q %q", one, again, other)
	}
}

func TestExchange_Garbage(t *testing.T) {
	s, err := scram.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	away := errors.New("away")
	for data, want := range map[string]error{"": nil, "x": nil, "n,a=b,n=a,r=b": nil, strings.Repeat("n", 5000): nil, "n,,n=a,r=b": away} {
		e, err := s.Begin(func(string) (*tenancy.SCRAM, error) { return nil, want })
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = e.Step([]byte(data))
		if want != nil && !errors.Is(err, want) || want == nil && !errs.Is(err, errs.Denied) {
			t.Errorf("%.20q: %v", data, err)
		}
	}
}
