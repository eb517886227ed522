// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
)

// noteLife is after what time a change that was noted will not be ended any
// more by who began it: longer than any request.
const noteLife = 2 * time.Minute

func number(text string) (uint64, bool) {
	n, err := strconv.ParseUint(text, 10, 64)
	return n, err == nil
}

// Run records what others have left, and removes what is older than an
// organization keeps, until ctx is done. Any number of processes may do it.
func (l *Log) Run(ctx context.Context) error {
	recover, prune := time.NewTicker(time.Minute), time.NewTicker(time.Hour)
	defer recover.Stop()
	defer prune.Stop()
	for {
		var err error
		select {
		case <-recover.C:
			_, err = l.Recover(ctx)
		case <-prune.C:
			_, err = l.Prune(ctx)
		case <-ctx.Done():
			return nil
		}
		if err != nil && ctx.Err() == nil {
			l.cfg.Log.Warn("audit log not looked after", "error", err)
		}
	}
}

// Recover records changes that were noted and neither recorded nor dropped, with
// the outcome Unknown, and returns how many.
func (l *Log) Recover(ctx context.Context) (int, error) {
	entries, _, err := bus.List(ctx, l.notes, "", 1<<20)
	if err != nil {
		return 0, err
	}
	n := 0
	var all error
	for _, e := range entries {
		if l.now().Sub(e.Created) < noteLife {
			continue
		}
		done, err := l.recover(ctx, e)
		if done {
			n++
		}
		all = errors.Join(all, err)
	}
	return n, all
}

func (l *Log) recover(ctx context.Context, e bus.Entry) (bool, error) {
	r, err := Decode(e.Value)
	if err != nil {
		return false, err
	}
	// Whoever is first takes it; the others see another revision.
	rev, err := l.notes.Put(ctx, e.Key, e.Value, e.Revision)
	if errs.Is(err, errs.Conflict) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	// Who has read the notes after that Put claims it too; the chain takes one of them.
	made, err := l.appendUnless(ctx, &r, func(end uint64) (bool, error) { return l.recorded(ctx, &r, end) })
	if err != nil {
		return false, err
	}
	if made {
		l.cfg.Log.Warn("change recorded whose outcome is not known", "organization", r.Organization, "operation", r.Operation, "id", r.ID)
	}
	err = l.notes.Delete(ctx, e.Key, rev)
	if errs.Is(err, errs.Conflict) || errs.Is(err, errs.NotFound) {
		err = nil // another process had the same note, and was first
	}
	return made, err
}

// recorded reports whether the noted change is among the first end records of the chain.
func (l *Log) recorded(ctx context.Context, note *Record, end uint64) (bool, error) {
	for n := end; n > 0; n-- {
		r, err := l.record(ctx, note.Organization, n)
		if errs.Is(err, errs.NotFound) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if r.ID == note.ID {
			return true, nil
		}
		if r.At.Before(note.At.Add(-time.Hour)) {
			return false, nil
		}
	}
	return false, nil
}

// Prune removes records that are older than their organizations keep, but never
// the newest of a chain, and returns how many.
func (l *Log) Prune(ctx context.Context) (int, error) {
	organizations, err := l.heads.Keys(ctx, "")
	if err != nil {
		return 0, err
	}
	n := 0
	var all error
	for _, o := range organizations {
		removed, err := l.prune(ctx, o)
		n += removed
		all = errors.Join(all, err)
	}
	return n, all
}

func (l *Log) prune(ctx context.Context, organization string) (int, error) {
	days, err := l.cfg.Days(ctx, organization)
	if err != nil || days < 0 {
		return 0, err
	}
	before := l.now().AddDate(0, 0, -int(max(days, 1)))
	h, err := l.end(ctx, organization)
	if err != nil {
		return 0, err
	}
	// What somebody has left who died between the two steps below.
	for n := h.First - 1; n > 0; n-- {
		if _, err := l.record(ctx, organization, n); err != nil {
			break
		}
		if err := l.records.Delete(ctx, key(organization, n), bus.Any); err != nil {
			return 0, err
		}
	}
	first := h.First
	for first < h.N {
		r, err := l.record(ctx, organization, first)
		if err != nil && !errs.Is(err, errs.NotFound) { // else removed by somebody who died then
			return 0, err
		}
		if err == nil && !r.At.Before(before) {
			break
		}
		first++
	}
	if first == h.First {
		return 0, nil
	}
	// Said first: what is missing before First is no sign of tampering.
	moved := h.head
	moved.First = first
	b, err := json.Marshal(moved)
	if err != nil {
		return 0, errs.New(errs.Internal, "encode the head of an audit log: %w", err)
	}
	l.forget(organization)
	if _, err := l.heads.Put(ctx, organization, b, h.revision); err != nil {
		if errs.Is(err, errs.Conflict) {
			return 0, nil // somebody wrote; in an hour then
		}
		return 0, err
	}
	for n := h.First; n < first; n++ {
		if err := l.records.Delete(ctx, key(organization, n), bus.Any); err != nil {
			return int(n - h.First), err
		}
	}
	return int(first - h.First), nil
}
