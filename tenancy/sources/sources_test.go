// SPDX-License-Identifier: Apache-2.0

package sources_test

import (
	"context"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/manormq/manor/infra/bus/mem"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/audit"
	"github.com/manormq/manor/tenancy/authn/password"
	"github.com/manormq/manor/tenancy/decide"
	"github.com/manormq/manor/tenancy/events"
	"github.com/manormq/manor/tenancy/sources"
	"github.com/manormq/manor/tenancy/store"
)

// world is the tenant acme with a folder of files, which processes look into.
type world struct {
	*testing.T
	dir      string
	bus      *slowBus
	store    *store.Store
	verifier *password.Verifier
	audit    *audit.Log
	policies *decide.Service

	mu   sync.Mutex
	told []events.Event // guarded by mu
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, dir: t.TempDir(), bus: &slowBus{Bus: mem.New()}}
	var err error
	w.store, err = store.New(t.Context(), store.Config{Bus: w.bus, Log: telemetry.Discard(), Region: "local"})
	w.must(err)
	w.verifier, err = password.NewVerifier(0)
	w.must(err)
	w.audit, err = audit.Open(t.Context(), audit.Config{Bus: w.bus, Log: telemetry.Discard(), Days: w.store.AuditDays})
	w.must(err)
	w.policies, err = decide.New(decide.Config{Store: w.store, Log: telemetry.Discard()})
	w.must(err)
	_, hash, err := password.Generate()
	w.must(err)
	_, err = w.store.SignUp(t.Context(), store.SignUp{
		Organization: "Acme", Email: "ops@acme.example", PasswordHash: "none", Tenant: "acme", Plan: "dev", Username: "default", CredentialHash: hash,
	})
	w.must(err)
	w.must(os.Mkdir(filepath.Join(w.dir, "acme"), 0o700))
	w.must(os.WriteFile(filepath.Join(w.dir, "README"), nil, 0o600)) // is nobody's
	return w
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// process looks into the folder until stop.
func (w *world) process() (reg *prometheus.Registry, stop func()) {
	w.Helper()
	reg = prometheus.NewRegistry()
	s, err := sources.New(w.Context(), sources.Config{
		Dir: w.dir, Store: w.store, Policies: w.policies, Hasher: w.verifier, Audit: w.audit, Log: telemetry.Discard(), Registerer: reg, Every: 10 * time.Millisecond,
		Happened: func(_ string, e events.Event) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.told = append(w.told, e)
		},
	})
	w.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Run(ctx) }()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	w.Cleanup(stop)
	return reg, stop
}

// file replaces a file as careful programs do.
func (w *world) file(name, text string) {
	w.Helper()
	path := filepath.Join(w.dir, "acme", name)
	w.must(os.WriteFile(path+".new", []byte(text), 0o600))
	w.must(os.Rename(path+".new", path))
}

func (w *world) until(what string, f func() bool) {
	w.Helper()
	for end := time.Now().Add(10 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			w.Fatalf("expected %s", what)
		}
	}
}

// event waits until the history has that many of a kind, and returns the last one.
func (w *world) event(kind events.Kind, n int) (last events.Event) {
	w.Helper()
	w.until(fmt.Sprintf("%d events %s", n, kind), func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		count := 0
		for _, e := range w.told {
			if e.Kind == kind {
				count, last = count+1, e
			}
		}
		return count >= n
	})
	return last
}

// source is what is kept of a file.
func (w *world) source(kind string) *store.Source {
	w.Helper()
	o, err := w.store.Source(w.Context(), "acme", kind)
	w.must(err)
	return o
}

// line is one of vmq-passwd.
func line(user, word, salt string) string {
	sum := sha512.Sum512([]byte(word + salt))
	return user + ":$6$" + base64.StdEncoding.EncodeToString([]byte(salt)) + "$" + base64.StdEncoding.EncodeToString(sum[:]) + "\n"
}

// knows reports whether the user has that password.
func (w *world) knows(user, word string) bool {
	w.Helper()
	c, err := w.store.Credential(w.Context(), "acme", user)
	if err != nil {
		return false
	}
	ok, err := w.verifier.Verify(w.Context(), c.Tenant, c.ID, c.Revision, c.Hash, []byte(word))
	w.must(err)
	return ok
}

func (w *world) generation(user string) int {
	w.Helper()
	c, err := w.store.Credential(w.Context(), "acme", user)
	w.must(err)
	return c.Generation
}

func TestService_Passwd(t *testing.T) {
	w := newWorld(t)
	_, stop := w.process()
	w.file("vmq.passwd", line("a", "word-a", "s1")+line("b", "word-b", "s2")+line("default", "word-d", "s3"))
	if e := w.event(events.SourceApplied, 1); e.Reason != tenancy.SourcePasswd || !strings.HasPrefix(e.Why, "2 users added, 0 changed, 0 removed; 1 left") {
		t.Errorf("told %+v", e)
	}
	if o := w.source(tenancy.SourcePasswd); o.Users != 3 || o.Skipped != 1 || o.Problem != "" || o.AppliedAt.IsZero() {
		t.Errorf("kept %+v", o)
	}
	if !w.knows("a", "word-a") || !w.knows("b", "word-b") || w.knows("default", "word-d") {
		t.Error("the credentials are not those of the file, or the API's has changed")
	}
	// One is changed, one is removed, one is added; one has the same salt and another password.
	w.file("vmq.passwd", line("a", "word-a", "s1")+line("c", "word-c", "s4"))
	w.event(events.SourceApplied, 2)
	w.file("vmq.passwd", "# only these\n"+line("a", "other-a", "s1")+line("c", "word-c", "s4"))
	if e := w.event(events.SourceApplied, 3); e.Why != "0 users added, 1 changed, 0 removed" {
		t.Errorf("told %+v", e)
	}
	if w.knows("b", "word-b") || !w.knows("a", "other-a") || w.generation("a") != 2 || w.generation("c") != 1 {
		t.Error("the credentials are not those of the file")
	}
	// A process that died has changed some: they are looked at, though the line is as it was.
	_, other, err := password.Generate()
	w.must(err)
	_, err = w.store.SetPassword(t.Context(), "acme", "a", other)
	w.must(err)
	begun := *w.source(tenancy.SourcePasswd)
	begun.Mark, begun.FolderMark = "", ""
	w.must(w.store.PutSource(t.Context(), &begun))
	w.file("vmq.passwd", "# once more\n"+line("a", "other-a", "s1")+line("c", "word-c", "s4"))
	if e := w.event(events.SourceApplied, 4); e.Why != "0 users added, 1 changed, 0 removed" || !w.knows("a", "other-a") {
		t.Errorf("told %+v", e)
	}
	// Another process that comes with the same file, after a change to it: nobody else is touched.
	stop()
	w.file("vmq.passwd", line("a", "other-a", "s1")+line("c", "word-c", "s5"))
	_, stop = w.process()
	if e := w.event(events.SourceApplied, 5); e.Why != "0 users added, 1 changed, 0 removed" || w.generation("a") != 4 || w.generation("c") != 2 {
		t.Errorf("told %+v, generations %d and %d", e, w.generation("a"), w.generation("c"))
	}
	stop()
	records, err := w.audit.Recover(t.Context())
	w.must(err)
	if records != 0 {
		t.Errorf("%d changes were not recorded at once", records)
	}
}

func TestService_ACL(t *testing.T) {
	w := newWorld(t)
	w.process()
	w.file("vmq.acl", "topic read news/#\nuser alice\ntopic home\n")
	w.event(events.SourceApplied, 1)
	first := w.source(tenancy.SourceACL)
	tn, err := w.store.Tenant(t.Context(), "acme")
	w.must(err)
	if first.Revision != 1 || tn.Policy.Live() != 1 {
		t.Fatalf("kept %+v, live %d", first, tn.Policy.Live())
	}
	// What does not parse keeps the last good one, and says where.
	w.file("vmq.acl", "topic read news/#\nallow x\n")
	if e := w.event(events.SourceFailed, 1); e.Reason != tenancy.SourceACL || !strings.HasPrefix(e.Why, "vmq.acl:2:1: expected a line that begins with topic") {
		t.Errorf("told %+v", e)
	}
	if o := w.source(tenancy.SourceACL); o.Revision != 1 || o.Problem == "" || o.ProblemAt.IsZero() || o.Mark != first.Mark {
		t.Errorf("kept %+v", o)
	}
	w.file("vmq.acl", "topic read news/#\n")
	w.event(events.SourceApplied, 2)
	set, err := w.store.Grants(t.Context(), "acme", 2, tenancy.DefaultClass)
	w.must(err)
	if o := w.source(tenancy.SourceACL); o.Revision != 2 || o.Problem != "" || len(set.Entries) != 1 {
		t.Errorf("kept %+v, entries %v", o, set.Entries)
	}
	// A comment is no other policy.
	w.file("vmq.acl", "# x\ntopic read news/#\n")
	if e := w.event(events.SourceApplied, 3); !strings.HasPrefix(e.Why, "revision ") {
		t.Errorf("told %+v", e)
	}
}

func TestService_Fails(t *testing.T) {
	w := newWorld(t)
	reg, _ := w.process()
	good := line("a", "word-a", "s1")
	w.file("vmq.passwd", good)
	w.event(events.SourceApplied, 1)
	path := filepath.Join(w.dir, "acme", "vmq.passwd")
	n := 0
	fails := func(want string) {
		t.Helper()
		n++
		if e := w.event(events.SourceFailed, n); !strings.Contains(e.Why, want) || strings.Contains(e.Why, w.dir) {
			t.Errorf("told %q, want %q", e.Why, want)
		}
		if !w.knows("a", "word-a") || w.source(tenancy.SourcePasswd).Problem == "" {
			t.Errorf("%s: the last good file does not hold, or nobody is told", want)
		}
	}
	w.file("vmq.passwd", "a:secret\n")
	fails("vmq.passwd:1:1: expected USER:$6$SALT$HASH")
	w.file("vmq.passwd", "")
	fails("is empty, which may be a file that is being written")
	w.must(os.Remove(path))
	fails("vmq.passwd is gone; what came from it stays")
	w.must(os.Mkdir(path, 0o700))
	fails("expected a regular file")
	w.must(os.Remove(path))
	w.file("vmq.passwd", good)
	w.until("no problem with the good file", func() bool { return w.source(tenancy.SourcePasswd).Problem == "" })
	w.must(os.Chmod(path, 0o606))
	fails("expected a file that not everybody may write (chmod o-w), found the mode 0606")
	w.must(os.Chmod(path, 0o600))
	w.until("no problem after chmod", func() bool { return w.source(tenancy.SourcePasswd).Problem == "" })
	if _, _, err := w.store.ChangeTenant(t.Context(), "acme", 0, func(r *tenancy.TenantRecord) error {
		r.Overrides = map[string]int64{"credentials": 2}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	w.file("vmq.passwd", good+line("b", "word-b", "s2"))
	fails("credentials")
	_, _, err := w.store.ChangeTenant(t.Context(), "acme", 0, func(r *tenancy.TenantRecord) error {
		r.Overrides = map[string]int64{"credentials": 3}
		return nil
	})
	w.must(err)
	w.file("vmq.passwd", "# again\n"+good+line("b", "word-b", "s2"))
	if e := w.event(events.QuotaReached, 1); e.Reason != "credentials" {
		t.Errorf("told %+v", e)
	}
	// A folder of nobody's is told in the log alone.
	w.must(os.Mkdir(filepath.Join(w.dir, "nobody"), 0o700))
	w.must(os.WriteFile(filepath.Join(w.dir, "nobody", "vmq.acl"), []byte("topic a\n"), 0o600))
	failed := func() (n float64) {
		families, err := reg.Gather()
		w.must(err)
		for _, f := range families {
			for _, m := range f.Metric {
				if f.GetName() == "manor_source_changes_total" && m.Label[0].GetValue() == tenancy.SourceACL && m.Label[1].GetValue() == "failed" {
					n = m.Counter.GetValue()
				}
			}
		}
		return n
	}
	w.until("a failure to be counted", func() bool { return failed() > 0 })
	if o, err := w.store.Sources(t.Context(), "nobody"); err != nil || len(o) > 0 {
		t.Errorf("of a tenant that is not there %v is kept, %v", o, err)
	}
	families, err := reg.Gather()
	w.must(err)
	for _, f := range families {
		for _, m := range f.Metric {
			if f.GetName() == "manor_source_changes_total" && m.Label[0].GetValue() == tenancy.SourcePasswd && m.Label[1].GetValue() == "failed" && m.Counter.GetValue() < float64(n) {
				t.Errorf("%v failures are counted, want %d at least", m.Counter.GetValue(), n)
			}
		}
	}
	if _, err := sources.New(t.Context(), sources.Config{Dir: path, Store: w.store, Log: telemetry.Discard()}); err == nil || !strings.Contains(err.Error(), "sources_dir: expected a folder") {
		t.Errorf("a file as folder: %v", err)
	}
}

// Of several processes that see the same folder one applies a change.
func TestService_OneOfSeveral(t *testing.T) {
	w := newWorld(t)
	for range 3 {
		w.process()
	}
	w.file("vmq.acl", "topic a\n")
	w.file("vmq.passwd", line("a", "word-a", "s1"))
	w.event(events.SourceApplied, 2)
	w.file("vmq.acl", "topic b\n")
	w.file("vmq.passwd", line("a", "word-b", "s2"))
	w.event(events.SourceApplied, 4)
	for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if o := w.source(tenancy.SourceACL); o.Revision != 2 || w.generation("a") != 2 {
			t.Fatalf("it was applied again: revision %d, generation %d", o.Revision, w.generation("a"))
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.told) != 4 {
		t.Errorf("told %+v", w.told)
	}
}
