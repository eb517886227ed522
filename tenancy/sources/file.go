// SPDX-License-Identifier: Apache-2.0

package sources

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"os"
	"sync/atomic"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/events"
	"github.com/manormq/manor/tenancy/store"
)

// file is one of a tenant's. Run's goroutine owns it, and while busy is set the goroutine
// that sees to it.
type file struct {
	path, name, tenant, kind string
	most                     int64

	busy    atomic.Bool
	failing atomic.Bool

	seen    fs.FileInfo // at the last look; nil if it could not be looked at
	missing string      // why it could not
	applied fs.FileInfo // what seen was when nothing was left to do
	again   time.Time   // when a failure is tried again
	problem string      // that was told last
	moves   int         // how often at a stretch it has changed while it was read
}

// A file that changes while it is read is told of after movesMost times at a stretch.
const (
	codeMoving = "source_moving"
	movesMost  = 20
)

// due notes how the file looks, and reports whether something is to be done.
func (f *file) due(info fs.FileInfo, err error) bool {
	if f.busy.Load() {
		return false
	}
	if err != nil {
		if f.seen = nil; f.missing != err.Error() {
			f.missing, f.again = err.Error(), time.Time{}
			return false // it may be about to be replaced
		}
		return f.problem == "" || !time.Now().Before(f.again)
	}
	before := f.seen
	f.seen, f.missing = info, ""
	switch {
	case !same(before, info):
		f.again = time.Time{}
		return false // it may be being written
	case same(f.applied, info) && !f.failing.Load():
		return false
	}
	return !time.Now().Before(f.again)
}

// same reports whether two looks have found the same.
func same(a, b fs.FileInfo) bool {
	return a != nil && b != nil && os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size() && a.Mode() == b.Mode()
}

// see reads and applies a file that is due.
func (s *Service) see(ctx context.Context, f *file) {
	text, err := f.read()
	if err == nil {
		var ok bool
		if ok, err = s.locked(ctx, f, text); !ok && err == nil {
			return // another process is at it
		}
	}
	if ctx.Err() != nil {
		return
	}
	if errs.CodeOf(err) == codeMoving && f.moves < movesMost {
		f.moves++
		return // it is read at a later look: to write a file is no failure
	}
	f.moves = 0
	if err != nil {
		s.fail(ctx, f, err)
		return
	}
	f.applied, f.again, f.problem = f.seen, time.Time{}, ""
	f.failing.Store(false)
}

// change is a file as it is to be applied.
type change struct {
	tenant, kind, text string
	// folder says that it lies in the operator's folder: so it is the operator's in the
	// audit log.
	folder bool
}

func (c *change) lock() string { return c.tenant + " " + c.kind }

func (s *Service) unlock(ctx context.Context, c *change) {
	if err := s.leases.Unlock(context.WithoutCancel(ctx), c.lock()); err != nil {
		s.cfg.Log.Warn("the lock of a file stays until its life is over", "tenant", c.tenant, "kind", c.kind, "error", err)
	}
}

// locked applies a file unless another process is at it, or was.
func (s *Service) locked(ctx context.Context, f *file, text string) (ok bool, err error) {
	c := &change{tenant: f.tenant, kind: f.kind, text: text, folder: true}
	if ok, err = s.leases.TryLock(ctx, c.lock()); err != nil || !ok {
		return false, err
	}
	defer s.unlock(ctx, c)
	_, told, err := s.settle(ctx, c)
	if err != nil {
		return true, err
	}
	if told != "" {
		s.cfg.Log.Info("a file of a tenant was applied", "tenant", f.tenant, "file", f.path, "what", told)
	}
	return true, nil
}

// settle applies a change unless it was applied last, and returns what is kept of it, and what was
// done in words; "" is nothing. A file in the folder that was applied last of those there is not
// applied again over what the tenant has sent since: else each start would bring back whom that
// has removed. Its caller has the lock.
func (s *Service) settle(ctx context.Context, c *change) (o *store.Source, told string, err error) {
	if o, err = s.cfg.Store.Source(ctx, c.tenant, c.kind); err != nil {
		return nil, "", err
	}
	sum := sha256.Sum256([]byte(c.text))
	digest := hex.EncodeToString(sum[:])
	done, mark := false, o.Mark
	if c.folder {
		mark = o.FolderMark
	}
	if mark != "" {
		// The name has the hash: the answer is remembered by it.
		if done, err = s.cfg.Hasher.Verify(ctx, sourceTurn, "source "+c.lock()+" "+mark, 0, mark, []byte(digest)); err != nil {
			return nil, "", err
		}
	}
	if done {
		if mark == o.Mark {
			s.remember(c, mark)
		}
		if o.Problem == "" {
			return o, "", nil
		}
	}
	now := *o
	if !done {
		if told, err = s.apply(ctx, c, &now); err != nil {
			return nil, "", err
		}
		if now.Mark, err = s.cfg.Hasher.Hash(ctx, sourceTurn, digest); err != nil {
			return nil, "", err
		}
		if c.folder {
			now.FolderMark = now.Mark
		}
		now.AppliedAt = time.Now().UTC()
	}
	now.Problem, now.ProblemAt = "", time.Time{}
	if err := s.cfg.Store.PutSource(ctx, &now); err != nil {
		return nil, "", err
	}
	if !done {
		s.remember(c, now.Mark)
		s.changes.WithLabelValues(c.kind, "applied").Inc()
		s.cfg.Happened(c.tenant, events.Event{At: time.Now().UTC(), Kind: events.SourceApplied, Reason: c.kind, Why: told})
	}
	return &now, told, nil
}

// fail says that a file could not be applied, once for each reason, and when it is tried again.
func (s *Service) fail(ctx context.Context, f *file, err error) {
	f.failing.Store(true)
	f.again = time.Now().Add(againAfter)
	if k := errs.KindOf(err); k == errs.Unavailable || k == errs.Internal {
		f.again = time.Now().Add(soonAfter)
	}
	t, gone := s.cfg.Store.Tenant(ctx, f.tenant)
	if gone == nil && t.State == tenancy.StateDeleted {
		f.again = time.Now().Add(deletedAgain)
	}
	s.changes.WithLabelValues(f.kind, "failed").Inc()
	if f.problem == err.Error() {
		return
	}
	f.problem = err.Error()
	s.cfg.Log.Warn("a file of a tenant cannot be applied: what the last good one has made holds", "tenant", f.tenant, "file", f.path, "error", err)
	if errs.Is(gone, errs.NotFound) {
		return // what is not there has no history
	}
	var o *store.Source
	if o, err = s.cfg.Store.Source(ctx, f.tenant, f.kind); err == nil {
		o.Problem, o.ProblemAt = f.problem, time.Now().UTC()
		err = s.cfg.Store.PutSource(ctx, o)
	}
	if err != nil {
		s.cfg.Log.Warn("the problem of a file is not kept", "tenant", f.tenant, "file", f.path, "error", err)
	}
	s.cfg.Happened(f.tenant, events.Event{At: time.Now().UTC(), Kind: events.SourceFailed, Reason: f.kind, Why: f.problem})
}
