// SPDX-License-Identifier: Apache-2.0

package leveldb_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/syndtr/goleveldb/leveldb/storage"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/infra/kv/kvtest"
	"github.com/manormq/manor/infra/kv/leveldb"
	"github.com/manormq/manor/infra/kv/mem"
)

// subject opens stores in folders of their own and reopens them there.
func subject(reopen bool, o leveldb.Options) kvtest.Subject {
	dirs := map[kv.Store]string{}
	at := func(t testing.TB, dir string) kv.Store {
		s, err := leveldb.Open(dir, o)
		if err != nil {
			t.Fatal(err)
		}
		dirs[s] = dir
		return s
	}
	sub := kvtest.Subject{Open: func(t testing.TB) kv.Store { return at(t, t.TempDir()) }}
	if reopen {
		sub.Reopen = func(t testing.TB, s kv.Store) kv.Store {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			return at(t, dirs[s])
		}
	}
	return sub
}

func TestStore(t *testing.T) { kvtest.Run(t, subject(true, leveldb.Options{})) }

func TestStore_Metamorphic(t *testing.T) {
	seeds := uint64(8)
	if testing.Short() {
		seeds = 2
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			kvtest.Metamorphic(t, seed, 1500, map[string]kvtest.Subject{
				"mem":              {Open: func(testing.TB) kv.Store { return mem.New() }},
				"leveldb":          subject(false, leveldb.Options{}),
				"leveldb+reopen":   subject(true, leveldb.Options{}),
				"leveldb+compacts": subject(true, leveldb.Options{WriteBuffer: 4 << 10, Compression: true, BlockCache: -1}),
			})
		})
	}
}

func TestOpen_LockedFolderSaysSo(t *testing.T) {
	dir := t.TempDir()
	s, err := leveldb.Open(dir, leveldb.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := leveldb.Open(dir, leveldb.Options{}); !errors.Is(err, kv.ErrLocked) {
		t.Errorf("second Open: %v, want ErrLocked", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, err = leveldb.Open(dir, leveldb.Options{})
	if err != nil {
		t.Fatalf("Open after Close: %v", err)
	}
	_ = s.Close()
}

// journals returns the journal files in dir.
func journals(t *testing.T, dir string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil || len(found) == 0 {
		t.Fatalf("journals in %s: %v, %v", dir, found, err)
	}
	return found
}

// copyDir is the folder as a process finds it that starts after a kill -9 of
// the one that holds src.
func copyDir(t *testing.T, src string) string {
	t.Helper()
	dst := t.TempDir()
	if err := os.CopyFS(dst, os.DirFS(src)); err != nil {
		t.Fatal(err)
	}
	return dst
}

func TestOpen_TornJournalTail(t *testing.T) {
	dir := t.TempDir()
	s, err := leveldb.Open(dir, leveldb.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	for i := range 20 {
		kvtest.Put(t, s, false, fmt.Sprintf("k%02d", i), "v", fmt.Sprintf("l%02d", i), "v")
	}
	whole, err := os.ReadFile(journals(t, dir)[0])
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func([]byte) []byte{
		"cut":     func(b []byte) []byte { return b[:len(b)-3] },
		"garbage": func(b []byte) []byte { return append(b[:len(b)-3], "xyz"...) },
		"zeros":   func(b []byte) []byte { return append(b[:len(b)-9], make([]byte, 200)...) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := copyDir(t, dir)
			if err := os.WriteFile(journals(t, dir)[0], damage(bytes.Clone(whole)), 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := leveldb.Open(dir, leveldb.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = s.Close() }()
			got := kvtest.Dump(t, s, nil, nil)
			if len(got) != 38 { // the last batch of two is gone as a whole, no other
				t.Fatalf("%d entries, want 38: %v", len(got), got)
			}
			kvtest.Put(t, s, true, "after", "v")
		})
	}
}

func TestOpen_CorruptManifest(t *testing.T) {
	dir := t.TempDir()
	s, err := leveldb.Open(dir, leveldb.Options{})
	if err != nil {
		t.Fatal(err)
	}
	kvtest.Put(t, s, true, "a", "1")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	manifests, _ := filepath.Glob(filepath.Join(dir, "MANIFEST-*"))
	for _, m := range manifests {
		if err := os.WriteFile(m, []byte("not a manifest"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := leveldb.Open(dir, leveldb.Options{}); !errors.Is(err, kv.ErrCorrupt) {
		t.Fatalf("Open: %v, want ErrCorrupt", err)
	}
	s, err = leveldb.Open(dir, leveldb.Options{Repair: true})
	if err != nil {
		t.Fatalf("Open with Repair: %v", err)
	}
	defer func() { _ = s.Close() }()
	if diff := cmp.Diff([]kvtest.Entry{{Key: "a", Value: "1"}}, kvtest.Dump(t, s, nil, nil)); diff != "" {
		t.Errorf("after a repair (-want +got):\n%s", diff)
	}
}

// cutStorage keeps of each file what a power cut would leave: what was synced.
type cutStorage struct {
	storage.Storage
	synced map[storage.FileDesc][]byte
}

type cutWriter struct {
	storage.Writer
	fd      storage.FileDesc
	written []byte
	cut     *cutStorage
}

func (c *cutStorage) Create(fd storage.FileDesc) (storage.Writer, error) {
	w, err := c.Storage.Create(fd)
	return &cutWriter{Writer: w, fd: fd, cut: c}, err
}

func (w *cutWriter) Write(p []byte) (int, error) {
	w.written = append(w.written, p...)
	return w.Writer.Write(p)
}

func (w *cutWriter) Sync() error {
	w.cut.synced[w.fd] = bytes.Clone(w.written)
	return w.Writer.Sync()
}

// afterPowerCut returns the journals with nothing but their synced bytes.
func (c *cutStorage) afterPowerCut(t *testing.T) storage.Storage {
	t.Helper()
	out := storage.NewMemStorage()
	fds, err := c.List(storage.TypeAll)
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		data := c.synced[fd]
		w, err := out.Create(fd)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(w, bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
		_ = w.Close()
		if fd.Type == storage.TypeManifest {
			if err := out.SetMeta(fd); err != nil {
				t.Fatal(err)
			}
		}
	}
	return out
}

func TestApply_EmptySyncedBatchSyncsWhatWasBefore(t *testing.T) {
	cut := &cutStorage{Storage: storage.NewMemStorage(), synced: map[storage.FileDesc][]byte{}}
	s, err := leveldb.OpenStorage(cut, leveldb.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	kvtest.Put(t, s, false, "a", "1")
	if err := s.Apply(new(kv.Batch), true); err != nil {
		t.Fatal(err)
	}
	kvtest.Put(t, s, false, "b", "lost")
	again, err := leveldb.OpenStorage(cut.afterPowerCut(t), leveldb.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = again.Close() }()
	if diff := cmp.Diff([]kvtest.Entry{{Key: "a", Value: "1"}}, kvtest.Dump(t, again, nil, nil)); diff != "" {
		t.Errorf("after a power cut (-want +got):\n%s", diff)
	}
}

func BenchmarkApply(b *testing.B) {
	for _, n := range []int{1, 20, 100} {
		b.Run(fmt.Sprintf("batch=%d", n), func(b *testing.B) {
			s, err := leveldb.Open(b.TempDir(), leveldb.Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = s.Close() }()
			var batch kv.Batch
			value := make([]byte, 200)
			var key [16]byte
			for i := 0; b.Loop(); i++ {
				batch.Put(fmt.Appendf(key[:0], "%016d", i), value)
				if batch.Len() == n {
					if err := s.Apply(&batch, false); err != nil {
						b.Fatal(err)
					}
					batch.Reset()
				}
			}
		})
	}
}
