// SPDX-License-Identifier: Apache-2.0

// Package sources keeps tenants' credentials and policies as files say that lie in a
// folder of tenancyd's: DIR/TENANT/vmq.passwd and DIR/TENANT/vmq.acl. A file is applied
// as a whole when it has changed and stood still; one that cannot be leaves what the last
// one has made, and says so in the log, in a metric, in the tenant's history and in its
// record. Run owns the goroutines. Several processes may have the same folder: one
// of them applies a change.
package sources

import (
	"context"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/audit"
	"github.com/manormq/manor/tenancy/authn/password"
	"github.com/manormq/manor/tenancy/decide"
	"github.com/manormq/manor/tenancy/events"
	"github.com/manormq/manor/tenancy/files"
	"github.com/manormq/manor/tenancy/lease"
	"github.com/manormq/manor/tenancy/store"
)

const (
	// DefaultEvery is how often files are looked at. What has changed is read at the
	// second look at which it is the same.
	DefaultEvery = 400 * time.Millisecond
	// restFor is how many times as long as a look the pause after it is at least: with
	// thousands of folders, or on a slow file system, it is looked less often.
	restFor = 20
	// againAfter is when a file is tried again that could not be applied, soonAfter where
	// the bus was away.
	againAfter = time.Minute
	soonAfter  = 5 * time.Second
	// deletedAgain is when a file is tried again whose tenant is deleted: nearly not before it
	// changes.
	deletedAgain = 6 * time.Hour
	// atOnce is how many files are applied at a time.
	atOnce = 4
	// largeFrom is from how many bytes on a file is large: its hashes may take minutes. largeMost
	// are applied at a time, so that what is small, such as one user's removal, is not behind
	// what takes long.
	largeFrom = 64 << 10
	largeMost = atOnce / 2
	// tenantsMost bounds the folders that are looked into.
	tenantsMost = 10_000
)

// kinds are the files of a tenant, by their names.
var kinds = []struct {
	name, kind string
	most       int64 // bytes
}{
	{files.PasswdName, tenancy.SourcePasswd, 32 << 20},
	{files.ACLName, tenancy.SourceACL, 1 << 20},
}

// Config says what a Service stands on.
type Config struct {
	// Dir has a folder for each tenant, called as it; with an empty one there is Put alone.
	Dir      string
	Store    *store.Store
	Policies *decide.Service
	Hasher   *password.Verifier
	Audit    *audit.Log
	// Happened takes events for a tenant's history, and must not block; nil has none.
	Happened func(tenant string, e events.Event)
	Log      *slog.Logger
	// Registerer takes the metrics; nil means none.
	Registerer prometheus.Registerer
	// Every is how often files are looked at; 0 is DefaultEvery.
	Every time.Duration
}

// Metrics is the table of the service's metrics.
func Metrics() []telemetry.Metric {
	return []telemetry.Metric{
		{Name: "manor_sources", Kind: telemetry.Gauge, Labels: []string{"state"}, Help: "Files of tenants (sources_dir) as this process sees them: good, or failed, of which an older state holds."},
		{
			Name: "manor_source_changes_total", Kind: telemetry.Counter, Labels: []string{"kind", "result"},
			Help: "Files of tenants that were applied, or failed to be, by kind: vmq_passwd or vmq_acl. A file that goes on failing is tried again each minute, and counted each time.",
		},
	}
}

// Service applies the files. Make it with New; Run is called once.
type Service struct {
	cfg     Config
	leases  *lease.Leases
	states  *prometheus.GaugeVec
	changes *prometheus.CounterVec

	// lines are what this process knows to have been applied last, by lock.
	lines *lru.Cache[string, lines]

	known map[string]*file // by path; owned by Run
	slots chan struct{}
	large chan struct{} // one of it, too, for a large file
	many  bool          // that there are too many tenants was said; owned by Run
	// strange are the folders of which it was said that they are no tenant's; owned by Run.
	strange map[string]bool
}

// New returns a Service that applies files while Run runs.
func New(ctx context.Context, cfg Config) (*Service, error) {
	if cfg.Registerer == nil {
		cfg.Registerer = prometheus.NewRegistry()
	}
	if cfg.Every <= 0 {
		cfg.Every = DefaultEvery
	}
	if cfg.Happened == nil {
		cfg.Happened = func(string, events.Event) {}
	}
	t := Metrics()
	s := &Service{cfg: cfg, states: t[0].GaugeVec(cfg.Registerer), changes: t[1].CounterVec(cfg.Registerer), known: map[string]*file{}, strange: map[string]bool{}, slots: make(chan struct{}, atOnce), large: make(chan struct{}, largeMost)}
	var err error
	if s.lines, err = lru.New[string, lines](linesKept); err != nil {
		return nil, errs.New(errs.Internal, "sources: %w", err)
	}
	for _, k := range kinds {
		for _, result := range []string{"applied", "failed"} {
			s.changes.WithLabelValues(k.kind, result)
		}
	}
	s.states.WithLabelValues("good")
	s.states.WithLabelValues("failed")
	if cfg.Dir != "" {
		if _, err := os.ReadDir(cfg.Dir); err != nil {
			return nil, errs.New(errs.Invalid, "sources_dir: expected a folder that tenancyd can read: %w", err)
		}
		if info, err := os.Stat(cfg.Dir); err == nil && info.Mode()&worldWrites != 0 {
			return nil, errs.New(errs.Invalid, "sources_dir: expected a folder that not everybody may write (chmod o-w), found the mode %04o", info.Mode().Perm())
		}
	}
	locks, err := cfg.Store.Bus().Bucket(ctx, bus.BucketConfig{Name: "source_locks"})
	if err != nil {
		return nil, errs.New(errs.KindOf(err), "open the locks of sources: %w", err)
	}
	s.leases = lease.New(lease.Config{Bucket: locks, Log: cfg.Log})
	return s, nil
}

// Run looks at the files until ctx is done.
func (s *Service) Run(ctx context.Context) error {
	if s.cfg.Dir == "" {
		<-ctx.Done()
		return nil
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		begun := time.Now()
		due := s.look()
		next := time.NewTimer(max(s.cfg.Every, restFor*time.Since(begun)))
		for _, f := range due {
			release, ok := s.slot(f)
			if !ok {
				continue // it is due at the next look too
			}
			f.busy.Store(true)
			wg.Go(func() {
				defer func() { f.busy.Store(false); release() }()
				s.see(ctx, f)
			})
		}
		select {
		case <-next.C:
		case <-ctx.Done():
			next.Stop()
			return nil
		}
	}
}

// slot takes a slot for a file that is due, if there is one.
func (s *Service) slot(f *file) (release func(), ok bool) {
	large := f.seen != nil && f.seen.Size() >= largeFrom
	if large {
		select {
		case s.large <- struct{}{}:
		default:
			return nil, false
		}
	}
	giveBack := func() {
		if large {
			<-s.large
		}
	}
	select {
	case s.slots <- struct{}{}:
		return func() { <-s.slots; giveBack() }, true
	default:
		giveBack()
		return nil, false
	}
}

// nobodys says once that a folder cannot be a tenant's.
func (s *Service) nobodys(d fs.DirEntry, why error) {
	if s.strange[d.Name()] || !d.IsDir() || d.Name() == "lost+found" || len(s.strange) > tenantsMost {
		return
	}
	s.strange[d.Name()] = true
	s.cfg.Log.Warn("a folder in sources_dir is not looked into: expected the id of a tenant", "folder", d.Name(), "error", why)
}

// look returns the files that are due.
func (s *Service) look() (due []*file) {
	tenants, err := os.ReadDir(s.cfg.Dir)
	if err != nil {
		for _, f := range s.known { // each says so
			if f.due(nil, err) {
				due = append(due, f)
			}
		}
		return due
	}
	if len(tenants) > tenantsMost {
		if !s.many {
			s.many = true
			s.cfg.Log.Warn("sources_dir has more folders than are looked into", "folders", len(tenants), "most", tenantsMost)
		}
		tenants = tenants[:tenantsMost]
	}
	for _, d := range tenants {
		if strings.HasPrefix(d.Name(), ".") {
			continue
		}
		if err := tenancy.ValidTenantID(d.Name()); err != nil {
			s.nobodys(d, err)
			continue
		}
		for _, k := range kinds {
			path := filepath.Join(s.cfg.Dir, d.Name(), k.name)
			if s.known[path] == nil {
				if _, err := os.Lstat(path); err != nil && (os.IsNotExist(err) || !d.IsDir()) {
					continue
				}
				s.known[path] = &file{path: path, name: k.name, tenant: d.Name(), kind: k.kind, most: k.most}
			}
		}
	}
	states := map[bool]int{}
	for _, f := range s.known {
		info, err := os.Stat(f.path)
		if f.due(info, err) {
			due = append(due, f)
		}
		states[f.failing.Load()]++
	}
	s.states.WithLabelValues("good").Set(float64(states[false]))
	s.states.WithLabelValues("failed").Set(float64(states[true]))
	return due
}
