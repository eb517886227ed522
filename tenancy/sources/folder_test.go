// SPDX-License-Identifier: Apache-2.0

package sources_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/events"
	"github.com/manormq/manor/tenancy/sources"
	"github.com/manormq/manor/tenancy/store"
)

// slowBus lets a test do something before a record of a file is written, as others may.
type slowBus struct {
	bus.Bus
	before atomic.Pointer[func()] // of the next write
	each   atomic.Pointer[func(key string)]
}

func (b *slowBus) Bucket(ctx context.Context, c bus.BucketConfig) (bus.Bucket, error) {
	made, err := b.Bus.Bucket(ctx, c)
	if c.Name == "file_sources" {
		made = &slowBucket{made, b}
	}
	return made, err
}

type slowBucket struct {
	bus.Bucket
	bus *slowBus
}

func (b *slowBucket) Put(ctx context.Context, key string, value []byte, at bus.Revision) (bus.Revision, error) {
	if f := b.bus.before.Swap(nil); f != nil {
		(*f)()
	}
	if f := b.bus.each.Load(); f != nil {
		(*f)(key)
	}
	return b.Bucket.Put(ctx, key, value, at)
}

// sent is a file that the tenant sends by the API of a process that stands beside.
func (w *world) sent(text string) {
	w.Helper()
	s, err := sources.New(w.Context(), sources.Config{Store: w.store, Policies: w.policies, Hasher: w.verifier, Audit: w.audit, Log: telemetry.Discard()})
	w.must(err)
	_, err = s.Put(w.Context(), "acme", text)
	w.must(err)
}

// What a tenant has sent holds until the file in the folder changes, and a start is no change:
// whom the tenant has removed does not come back with it.
func TestService_SentHolds(t *testing.T) {
	w := newWorld(t)
	a, b := line("a", "word-a", "s1"), line("b", "word-b", "s2")
	_, stop := w.process()
	w.file("vmq.passwd", a+b)
	w.event(events.SourceApplied, 1)
	w.sent(line("a", "other-a", "s3"))
	stop()
	_, stop = w.process()
	w.file("vmq.acl", "topic news\n")
	w.event(events.SourceApplied, 2) // it has looked at the folder
	stop()
	if w.knows("b", "word-b") || !w.knows("a", "other-a") {
		t.Fatal("a start has undone what the tenant has sent")
	}
	w.process()
	w.file("vmq.passwd", a+b+"# changed\n")
	w.event(events.SourceApplied, 3)
	if !w.knows("b", "word-b") || !w.knows("a", "word-a") {
		t.Error("the file has changed, and is not what holds")
	}
}

// A credential that the API makes while a file is applied is the API's, though the file's had its
// name when that began.
func TestService_MadeMeanwhile(t *testing.T) {
	w := newWorld(t)
	w.process()
	w.file("vmq.passwd", line("a", "word-a", "s1")+line("b", "word-b", "s2")+line("c", "word-c", "s3"))
	w.event(events.SourceApplied, 1)
	w.until("nothing to be done", func() bool { return w.source(tenancy.SourcePasswd).Mark != "" })
	remake := func() {
		for _, name := range []string{"a", "b"} {
			w.must(w.store.DeleteCredential(context.Background(), "acme", name, 0))
			w.must(w.store.ImportCredential(context.Background(), "acme", tenancy.Credential{Username: name, Hash: "$sha256$api"}))
		}
	}
	w.bus.before.Store(&remake)
	w.file("vmq.passwd", line("b", "other-b", "s4")+line("c", "other-c", "s5"))
	if e := w.event(events.SourceApplied, 2); e.Why != "0 users added, 1 changed, 0 removed; 1 left as the API has made them" {
		t.Errorf("told %+v", e)
	}
	for _, name := range []string{"a", "b"} {
		if c, err := w.store.Credential(t.Context(), "acme", name); err != nil || c.Hash != "$sha256$api" || c.Source != "" {
			t.Errorf("what the API has made is %+v, %v", c, err)
		}
	}
	if !w.knows("c", "other-c") {
		t.Error("c has not the password of the file")
	}
}

// Who may write a tenant's folder learns nothing of what lies elsewhere, and stops nobody.
func TestService_Links(t *testing.T) {
	w := newWorld(t)
	home := filepath.Join(w.dir, "acme")
	path := filepath.Join(home, "vmq.acl")
	outside := filepath.Join(t.TempDir(), "secret")
	w.must(os.WriteFile(outside, []byte("s3cret-word of somebody\n"), 0o600))
	w.must(os.Mkdir(filepath.Join(w.dir, "other"), 0o700))
	w.must(os.WriteFile(filepath.Join(w.dir, "other", "mine"), []byte("topic x\n"), 0o600))
	w.process()
	n := 0
	fails := func(want string) {
		t.Helper()
		n++
		e := w.event(events.SourceFailed, n)
		if !strings.Contains(e.Why, want) || strings.Contains(e.Why, "s3cret") || strings.Contains(e.Why, outside) || strings.Contains(e.Why, w.dir) {
			t.Errorf("told %q, want %q", e.Why, want)
		}
		w.must(os.RemoveAll(path))
	}
	good := func() {
		t.Helper()
		w.file("vmq.acl", "topic news\n")
		w.until("no problem", func() bool { o := w.source(tenancy.SourceACL); return o.Problem == "" && o.Revision == 1 })
	}
	const out = "found a link that leads out of it, or to nothing"
	for _, to := range []string{outside, outside + "-that-is-not-there", "../other/mine", "/dev/zero"} {
		w.must(os.Symlink(to, path))
		fails(out)
		good()
		w.must(os.Remove(path))
	}
	w.must(syscall.Mkfifo(path, 0o600))
	fails("expected a regular file")
	good()
	w.must(os.Chmod(home, 0o707)) //nolint:gosec // that is what is refused
	w.file("vmq.acl", "topic other\n")
	fails("expected a folder that not everybody may write (chmod o-w), found the mode 0707")
	w.must(os.Chmod(home, 0o700)) //nolint:gosec // a folder
	// A folder that is mounted into a container has links within it.
	w.must(os.Mkdir(filepath.Join(home, "..v1"), 0o700))
	w.must(os.WriteFile(filepath.Join(home, "..v1", "vmq.acl"), []byte("topic mounted\n"), 0o600))
	w.must(os.Symlink("..v1", filepath.Join(home, "..data")))
	w.must(os.Symlink("..data/vmq.acl", path))
	w.until("the mounted file to hold", func() bool { o := w.source(tenancy.SourceACL); return o.Problem == "" && o.Revision == 2 })
}

// However many large files are being applied, a small one is not behind them.
func TestService_Large(t *testing.T) {
	w := newWorld(t)
	wait, begun := make(chan struct{}), make(chan string, 100)
	free := sync.OnceFunc(func() { close(wait) })
	t.Cleanup(free)
	held := func(key string) {
		if !strings.HasPrefix(key, "acme.") {
			begun <- key
			<-wait
		}
	}
	w.bus.each.Store(&held)
	for i := range 6 {
		id := fmt.Sprintf("large-%d", i)
		_, err := w.store.SignUp(t.Context(), store.SignUp{Organization: id, Email: id + "@acme.example", PasswordHash: "none", Tenant: id, Plan: "dev", Username: "default", CredentialHash: "$sha256$x"})
		w.must(err)
		w.must(os.Mkdir(filepath.Join(w.dir, id), 0o700))
		w.must(os.WriteFile(filepath.Join(w.dir, id, "vmq.passwd"), []byte(strings.Repeat("# a long comment\n", 5000)), 0o600))
	}
	w.process()
	<-begun
	<-begun
	w.file("vmq.passwd", line("a", "word-a", "s1"))
	w.event(events.SourceApplied, 1)
	if !w.knows("a", "word-a") || len(begun) > 0 {
		t.Errorf("%d more large files are applied, want 2 at a time", len(begun))
	}
	free()
	w.event(events.SourceApplied, 7)
}

// What cannot be a tenant's folder is said, once.
func TestService_Strange(t *testing.T) {
	w := newWorld(t)
	w.must(os.Mkdir(filepath.Join(w.dir, "Acme"), 0o700))
	var log lockedBuffer
	s, err := sources.New(t.Context(), sources.Config{
		Dir: w.dir, Store: w.store, Policies: w.policies, Hasher: w.verifier, Audit: w.audit, Log: slog.New(slog.NewTextHandler(&log, nil)), Every: time.Millisecond,
		Happened: func(_ string, e events.Event) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.told = append(w.told, e)
		},
	})
	w.must(err)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Run(ctx) })
	w.file("vmq.acl", "topic news\n")
	w.event(events.SourceApplied, 1)
	stop()
	wg.Wait()
	if n := strings.Count(log.String(), "folder=Acme"); n != 1 || strings.Contains(log.String(), "README") {
		t.Errorf("said %d times: %s", n, log.String())
	}
	w.must(os.Chmod(w.dir, 0o707)) //nolint:gosec // that is what is refused
	if _, err := sources.New(t.Context(), sources.Config{Dir: w.dir, Store: w.store, Log: telemetry.Discard()}); err == nil || !strings.Contains(err.Error(), "chmod o-w") {
		t.Errorf("a folder that everybody may write: %v", err)
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder // guarded by mu
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
