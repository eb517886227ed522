// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/bus/mem"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/tenancy/lease"
	"github.com/manormq/manor/tenancy/managedca"
)

func TestStorage(t *testing.T) {
	b, err := mem.New().Bucket(t.Context(), bus.BucketConfig{Name: Bucket})
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := managedca.NewSealer(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	s := &storage{lease.New(lease.Config{Bucket: b, Log: telemetry.Discard()}), b, sealer}
	ctx := t.Context()
	for _, missing := range []error{
		second(s.Load(ctx, "a/b")), second(s.Stat(ctx, "a/b")),
	} {
		if !errors.Is(missing, fs.ErrNotExist) {
			t.Errorf("what is not there: %v", missing)
		}
	}
	if err := s.Delete(ctx, "a/b"); err != nil {
		t.Errorf("deleting what is not there: %v", err)
	}
	if err := s.Lock(ctx, "a"); err != nil { // which is no file
		t.Fatal(err)
	}
	for _, name := range []string{"a/b/c.key", "a/b/d~@+.crt", "a/e", "ab/f"} {
		for _, value := range []string{"old", "secret " + name} {
			if err := s.Store(ctx, name, []byte(value)); err != nil {
				t.Fatal(err)
			}
		}
		if v, err := s.Load(ctx, name); err != nil || string(v) != "secret "+name {
			t.Errorf("%s: %q %v", name, v, err)
		}
		if i, err := s.Stat(ctx, name); err != nil || !i.IsTerminal || i.Key != name || i.Modified.IsZero() {
			t.Errorf("%s: %+v %v", name, i, err)
		}
	}
	for _, c := range []struct {
		path      string
		recursive bool
		want      []string
	}{
		{"", true, []string{"a/b/c.key", "a/b/d~@+.crt", "a/e", "ab/f"}},
		{"", false, []string{"a", "ab"}},
		{"a", true, []string{"a/b/c.key", "a/b/d~@+.crt", "a/e"}},
		{"a", false, []string{"a/b", "a/e"}},
		{"a/b", false, []string{"a/b/c.key", "a/b/d~@+.crt"}},
		{"x", true, nil},
	} {
		got, err := s.List(ctx, c.path, c.recursive)
		slices.Sort(got)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%q, %v: %q %v, want %q", c.path, c.recursive, got, err, c.want)
		}
	}
	if i, err := s.Stat(ctx, "a/b"); err != nil || i.IsTerminal {
		t.Errorf("a folder: %+v %v", i, err)
	}
	if !s.Exists(ctx, "a/b") || !s.Exists(ctx, "a/e") || s.Exists(ctx, "a/x") {
		t.Error("what exists is not told from what does not")
	}
	keys, err := b.Keys(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		if e, err := b.Get(ctx, key); err != nil || strings.Contains(string(e.Value), "secret") {
			t.Errorf("in the clear: %q %v", e.Value, err)
		}
	}
	// A value is none of another name.
	e, err := b.Get(ctx, fileKey("a/e"))
	if err == nil {
		_, err = b.Put(ctx, fileKey("ab/f"), e.Value, bus.Any)
	}
	if err != nil {
		t.Fatal(err)
	}
	if v, err := s.Load(ctx, "ab/f"); err == nil {
		t.Errorf("what was moved is read: %q", v)
	}
	if err := s.Delete(ctx, "a/b"); err != nil || s.Exists(ctx, "a/b") || !s.Exists(ctx, "a/e") {
		t.Errorf("deleting a folder: %v", err)
	}
	if err := s.Unlock(ctx, "a"); err != nil {
		t.Error(err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestIssuerKey(t *testing.T) {
	for url, want := range map[string]string{
		"https://acme-v02.api.letsencrypt.org/directory": "acme-v02.api.letsencrypt.org-directory",
		"https://127.0.0.1:14000/dir":                    "127.0.0.1-14000-dir",
		"nonsense":                                       "ca",
	} {
		if got := issuerKey(url); got != want {
			t.Errorf("%s: %q, want %q", url, got, want)
		}
	}
}
