// SPDX-License-Identifier: Apache-2.0

package remote

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// A snapshot file is a line that names the format, the HMAC-SHA256 of the rest
// under the node's key, and the rest in JSON. It holds hashes of passwords, so
// it is readable by its owner alone; the HMAC keeps anybody who can write to
// the disk, but not read the key, from letting devices in.
const snapshotMagic = "manor directory 1\n"

type snapshot struct {
	Contact         time.Time         `json:"contact"`
	Revision        uint64            `json:"credentials_revision"`
	Tenants         []snapshotTenant  `json:"tenants"`
	Bans            []*tenancy.Ban    `json:"bans,omitempty"`
	Keys            []keySet          `json:"token_keys,omitempty"`
	Devices         []*tenancy.Device `json:"devices,omitempty"`
	Hosts           []*tenancy.Host   `json:"hosts,omitempty"`
	NoDevices       []string          `json:"no_devices,omitempty"`       // keys of which there is none
	WholeRegistries []string          `json:"whole_registries,omitempty"` // tenants of which Devices has all
	DevicesRevision uint64            `json:"devices_revision,omitempty"`
}

type snapshotTenant struct {
	Record      *tenancy.TenantRecord `json:"record"`
	Revision    uint64                `json:"revision"`
	Whole       bool                  `json:"whole,omitempty"`
	Large       bool                  `json:"large,omitempty"`
	Credentials []snapshotCredential  `json:"credentials,omitempty"`
	Grants      []snapshotGrants      `json:"grants,omitempty"`
	Admitted    []snapshotAdmitted    `json:"admitted,omitempty"`
}

type snapshotCredential struct {
	tenancy.Credential
	Revision uint64 `json:"revision"`
}

// LoadKey reads the node's key from a file, which is made with a new key if it
// is missing.
func LoadKey(path string) ([]byte, error) {
	key, err := os.ReadFile(path)
	switch {
	case err == nil && len(key) != sha256.Size:
		return nil, errs.New(errs.Invalid, "node key %s: expected %d bytes, found %d", path, sha256.Size, len(key))
	case err == nil:
		return key, nil
	case !errors.Is(err, os.ErrNotExist):
		return nil, errs.New(errs.Unavailable, "node key: %w", err)
	}
	key = make([]byte, sha256.Size)
	if _, err := rand.Read(key); err != nil {
		return nil, errs.New(errs.Internal, "node key: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, errs.New(errs.Unavailable, "node key: %w", err)
	}
	if err := writeFile(path, key); err != nil {
		return nil, errs.New(errs.Unavailable, "node key: %w", err)
	}
	return key, nil
}

// writeFile replaces a file at once, or leaves it as it was.
func writeFile(path string, parts ...[]byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // not there any more if all went well
	for _, p := range parts {
		if _, err := f.Write(p); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// Pace of writing: soon after a change, but at most a twentieth of the time.
const (
	snapshotSoon  = time.Second
	snapshotShare = 20
	// snapshotContact is how old the time of contact in the file may get.
	snapshotContact = time.Minute
	// snapshotAhead is how far a clock may have been set back since the snapshot was
	// written; of a clock that is wrong by more, nobody can tell how old it is.
	snapshotAhead = 5 * time.Minute
)

func (d *Directory) runSnapshot(ctx context.Context) {
	rest := snapshotSoon
	for {
		select {
		case <-d.dirty:
		case <-time.After(snapshotContact):
		case <-ctx.Done():
			if err := d.save(); err != nil {
				d.log.Warn("snapshot not written", "error", err)
			}
			return
		}
		if !pause(ctx, rest) {
			continue
		}
		begin := time.Now()
		if err := d.save(); err != nil {
			d.log.Warn("snapshot not written", "error", err)
		}
		rest = max(snapshotSoon, snapshotShare*time.Since(begin))
	}
}

// save writes the snapshot, if there is anything to write.
func (d *Directory) save() error {
	s := snapshot{Contact: d.Contact(), Bans: d.bans.every(), Keys: d.keys.every(), Hosts: d.hosts.every()}
	s.Devices, s.NoDevices, s.WholeRegistries, s.DevicesRevision = d.devices.every()
	if s.Contact.IsZero() {
		return nil
	}
	grants, admitted := d.grants.snapshot()
	c := d.cache
	c.mu.RLock()
	s.Revision = c.revision
	for id, k := range c.tenants {
		t := snapshotTenant{Record: k.record, Revision: k.record.Revision, Grants: grants[id], Admitted: admitted[id]}
		if r := c.realms[id]; r != nil {
			t.Whole, t.Large = r.whole, r.large
			for _, cred := range r.names {
				t.Credentials = append(t.Credentials, snapshotCredential{cred, cred.Revision})
			}
		}
		s.Tenants = append(s.Tenants, t)
	}
	c.mu.RUnlock()
	body, err := json.Marshal(s)
	if err != nil {
		return errs.New(errs.Internal, "snapshot: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(d.cfg.Snapshot), 0o700); err != nil {
		return errs.New(errs.Unavailable, "snapshot: %w", err)
	}
	if err := writeFile(d.cfg.Snapshot, []byte(snapshotMagic), d.seal(body), body); err != nil {
		return errs.New(errs.Unavailable, "snapshot: %w", err)
	}
	return nil
}

func (d *Directory) seal(body []byte) []byte {
	m := hmac.New(sha256.New, d.cfg.Key)
	m.Write([]byte(snapshotMagic))
	m.Write(body)
	return m.Sum(nil)
}

// restore takes what the snapshot has, if it can be believed.
func (d *Directory) restore() {
	b, err := os.ReadFile(d.cfg.Snapshot)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	if err == nil {
		err = d.restoreFrom(b)
	}
	if err != nil {
		d.log.Warn("snapshot not used", "file", d.cfg.Snapshot, "error", err)
		return
	}
	d.setReady()
}

func (d *Directory) restoreFrom(b []byte) error {
	rest, ok := bytes.CutPrefix(b, []byte(snapshotMagic))
	if !ok || len(rest) < sha256.Size {
		return errs.New(errs.Invalid, "the file is no snapshot")
	}
	sum, body := rest[:sha256.Size], rest[sha256.Size:]
	if !hmac.Equal(sum, d.seal(body)) {
		return errs.New(errs.Denied, "the snapshot was not written by this node")
	}
	var s snapshot
	if err := json.Unmarshal(body, &s); err != nil {
		return errs.New(errs.Invalid, "read the snapshot: %w", err)
	}
	switch age := d.now().Sub(s.Contact); {
	case age > d.cfg.Keep:
		return errs.New(errs.Unavailable, "the snapshot is %s old", age.Round(time.Second))
	case age < -snapshotAhead:
		return errs.New(errs.Invalid, "the snapshot is of %s, which is to come: is the clock of this machine right?", s.Contact.UTC().Format(time.RFC3339))
	}
	d.contact.set(s.Contact)
	for _, b := range s.Bans {
		d.bans.set(b)
	}
	d.devices.restore(s.Devices, s.NoDevices, s.WholeRegistries, s.DevicesRevision)
	for _, k := range s.Keys {
		d.keys.set(k)
	}
	for _, h := range s.Hosts {
		d.hosts.set(tenancy.NewCustomHost(h, d.openKey))
	}
	c := d.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	c.revision = s.Revision
	for _, t := range s.Tenants {
		t.Record.Revision = t.Revision
		k, err := d.makeTenant(t.Record)
		if err != nil {
			return err
		}
		c.tenants[t.Record.ID] = k
		if err := d.grants.restore(t.Record.ID, t.Grants, t.Admitted); err != nil {
			return err
		}
		if len(t.Credentials) == 0 && !t.Whole && !t.Large {
			continue
		}
		r := c.realm(t.Record.ID)
		r.whole, r.large, r.wanted = t.Whole, t.Large, t.Whole || t.Large
		for _, cred := range t.Credentials {
			cred.Credential.Revision = cred.Revision
			c.store(r, cred.Credential)
		}
	}
	return nil
}
