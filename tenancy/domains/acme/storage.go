// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"context"
	"encoding/base64"
	"io/fs"
	"strings"

	"github.com/caddyserver/certmagic"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy/lease"
	"github.com/manormq/manor/tenancy/managedca"
)

// Bucket has what certmagic keeps, sealed: the account with its key, and certificates
// with theirs; and the locks.
const Bucket = "acme"

// storage is certmagic's Storage in a bucket. It is safe for concurrent use, by all
// processes of a region.
type storage struct {
	*lease.Leases
	bucket bus.Bucket
	sealer *managedca.Sealer
}

var (
	_ certmagic.Storage   = (*storage)(nil)
	_ certmagic.TryLocker = (*storage)(nil)
)

// fileBegins is the first word of the keys of what is kept.
const fileBegins = "file."

func fileKey(name string) string {
	return fileBegins + base64.RawURLEncoding.EncodeToString([]byte(strings.Trim(name, "/")))
}

func purpose(name string) string { return "acme " + strings.Trim(name, "/") }

// missing has certmagic see that there is nothing.
func missing(err error) error {
	if errs.Is(err, errs.NotFound) {
		return fs.ErrNotExist
	}
	return err
}

// Store implements certmagic.Storage.
func (s *storage) Store(ctx context.Context, name string, value []byte) error {
	_, err := s.bucket.Put(ctx, fileKey(name), s.sealer.Seal(purpose(name), value), bus.Any)
	return err
}

// Load implements certmagic.Storage.
func (s *storage) Load(ctx context.Context, name string) ([]byte, error) {
	e, err := s.bucket.Get(ctx, fileKey(name))
	if err != nil {
		return nil, missing(err)
	}
	return s.sealer.Open(purpose(name), e.Value)
}

// Delete implements certmagic.Storage: with what is below the name.
func (s *storage) Delete(ctx context.Context, name string) error {
	all, err := s.List(ctx, name, true)
	if err != nil {
		return err
	}
	for _, x := range append(all, name) {
		if err := s.bucket.Delete(ctx, fileKey(x), bus.Any); err != nil && !errs.Is(err, errs.NotFound) {
			return err
		}
	}
	return nil
}

// Exists implements certmagic.Storage.
func (s *storage) Exists(ctx context.Context, name string) bool {
	if _, err := s.bucket.Get(ctx, fileKey(name)); err == nil {
		return true
	}
	all, err := s.List(ctx, name, true)
	return err == nil && len(all) > 0
}

// List implements certmagic.Storage.
func (s *storage) List(ctx context.Context, path string, recursive bool) ([]string, error) {
	keys, err := s.bucket.Keys(ctx, fileBegins)
	if err != nil {
		return nil, err
	}
	below := strings.Trim(path, "/")
	if below != "" {
		below += "/"
	}
	var all []string
	seen := map[string]bool{}
	for _, key := range keys {
		b, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(key, fileBegins))
		rest, ok := strings.CutPrefix(string(b), below)
		if err != nil || !ok {
			continue
		}
		if dir, _, deeper := strings.Cut(rest, "/"); deeper && !recursive {
			rest = dir
		}
		if !seen[rest] {
			seen[rest] = true
			all = append(all, below+rest)
		}
	}
	return all, nil
}

// Stat implements certmagic.Storage.
func (s *storage) Stat(ctx context.Context, name string) (certmagic.KeyInfo, error) {
	e, err := s.bucket.Get(ctx, fileKey(name))
	if err == nil {
		return certmagic.KeyInfo{Key: name, Modified: e.Created, Size: int64(len(e.Value)), IsTerminal: true}, nil
	}
	if !errs.Is(err, errs.NotFound) {
		return certmagic.KeyInfo{}, err
	}
	all, err := s.List(ctx, name, true)
	switch {
	case err != nil:
		return certmagic.KeyInfo{}, err
	case len(all) == 0:
		return certmagic.KeyInfo{}, fs.ErrNotExist
	}
	return certmagic.KeyInfo{Key: name}, nil
}
