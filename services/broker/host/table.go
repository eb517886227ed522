// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"sync"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/services/broker/partition"
)

// Table is the partition table. Its methods are called concurrently.
type Table interface {
	// Watch tells every entry that there is, then calls synced, then tells every
	// change, in order, until ctx is done. An entry that is not there any more has
	// the Revision 0. It is called once.
	Watch(ctx context.Context, seen func(partition.ID, partition.Table), synced func()) error
	// Fresh returns when Entry is at least as new as the table was at the call.
	Fresh(ctx context.Context) error
	// Entry is the newest entry that was told.
	Entry(partition.ID) partition.Table
	// Propose carries a proposal out, if it can.
	Propose(ctx context.Context, p partition.ID, what partition.Proposal) (partition.Table, partition.Outcome)
}

// The keys of the bucket: an entry for each partition, and one that is written to
// know how new a read is.
const (
	entryPrefix = "partition."
	fenceKey    = "fence"
)

// BucketTable is the Table in a bucket. It must not be made anew under the same
// name: a partition that finds its entry gone back stops.
//
// A read of the bucket may be answered by a server that lags behind. So Fresh
// writes the fence, which only a server with a majority can take, and waits until
// the watch, which tells all changes in their order, has told of it.
type BucketTable struct {
	bucket bus.Bucket
	log    *slog.Logger

	mu      sync.Mutex
	entries map[partition.ID]partition.Table // guarded by mu
	told    bus.Revision                     // guarded by mu: up to where entries are
	changed chan struct{}                    // guarded by mu: closed when told moves
	again   context.CancelFunc               // guarded by mu: begins the watch anew
}

// NewBucketTable returns the table in bucket.
func NewBucketTable(bucket bus.Bucket, log *slog.Logger) *BucketTable {
	return &BucketTable{bucket: bucket, log: log, entries: make(map[partition.ID]partition.Table), changed: make(chan struct{})}
}

func entryKey(p partition.ID) string { return entryPrefix + strconv.Itoa(int(p)) }

// Entry implements Table.
func (t *BucketTable) Entry(p partition.ID) partition.Table {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.entries[p]
}

// Propose implements Table.
func (t *BucketTable) Propose(ctx context.Context, p partition.ID, what partition.Proposal) (partition.Table, partition.Outcome) {
	revision, err := t.bucket.Put(ctx, entryKey(p), what.Entry.Append(nil), bus.Revision(what.At))
	switch {
	case err == nil:
		return partition.Table{Entry: what.Entry, Revision: uint64(revision)}, partition.Won
	case errs.Is(err, errs.Conflict):
		return partition.Table{}, partition.Beaten
	case errors.Is(err, bus.ErrUntaken):
		// It is proposed again; that the bus takes no heartbeat is logged once a second.
		t.log.Debug("nobody takes a change of the partition table", slog.Int("partition", int(p)), slog.Any("error", err))
		return partition.Table{}, partition.Untaken
	default:
		t.log.Warn("a change of the partition table has no answer", slog.Int("partition", int(p)), slog.Any("error", err))
		return partition.Table{}, partition.Unknown
	}
}

// Fresh implements Table.
func (t *BucketTable) Fresh(ctx context.Context) error {
	t.mu.Lock()
	before := t.told
	t.mu.Unlock()
	at, err := t.bucket.Put(ctx, fenceKey, []byte("1"), bus.Any)
	if err != nil {
		return err
	}
	if at <= before {
		t.forget()
		return errs.New(errs.Unavailable, "the bucket of the partition table went back from revision %d to %d", before, at)
	}
	for {
		t.mu.Lock()
		told, changed := t.told, t.changed
		t.mu.Unlock()
		if told >= at {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return errs.New(errs.Unavailable, "the watch of the partition table has not come to revision %d: %w", at, ctx.Err())
		}
	}
}

// forget has the watch begin anew, with another bucket of the old name.
func (t *BucketTable) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.log.Error("the bucket of the partition table went back", slog.Uint64("revision", uint64(t.told)))
	if t.again != nil {
		t.again()
	}
}

// Watch implements Table.
func (t *BucketTable) Watch(ctx context.Context, seen func(partition.ID, partition.Table), synced func()) error {
	for ctx.Err() == nil {
		life, again := context.WithCancel(ctx)
		t.mu.Lock()
		old := t.entries
		t.entries, t.told, t.again = make(map[partition.ID]partition.Table), 0, again
		t.mu.Unlock()
		for p := range old {
			seen(p, partition.Table{})
		}
		err := t.bucket.Watch(life, bus.Watch{}, func(u bus.Update) { t.tell(u, seen, synced) })
		again()
		if ctx.Err() == nil && life.Err() == nil {
			return err
		}
	}
	return ctx.Err()
}

func (t *BucketTable) tell(u bus.Update, seen func(partition.ID, partition.Table), synced func()) {
	p, entry, is := t.parse(&u)
	t.mu.Lock()
	if is {
		t.entries[p] = entry
	}
	t.told = max(t.told, u.Entry.Revision)
	close(t.changed)
	t.changed = make(chan struct{})
	t.mu.Unlock()
	if is {
		seen(p, entry)
	}
	if u.Synced {
		synced()
	}
}

func (t *BucketTable) parse(u *bus.Update) (p partition.ID, entry partition.Table, is bool) {
	id, is := strings.CutPrefix(u.Entry.Key, entryPrefix)
	if u.Synced || !is {
		return 0, entry, false
	}
	n, err := strconv.ParseUint(id, 10, 16)
	if err == nil && !u.Deleted {
		entry.Revision = uint64(u.Entry.Revision)
		entry.Entry, err = partition.ParseEntry(u.Entry.Value)
	}
	if err != nil {
		t.log.Error("an entry of the partition table is not readable", slog.String("key", u.Entry.Key), slog.Any("error", err))
		return 0, entry, false
	}
	return partition.ID(n), entry, true
}
