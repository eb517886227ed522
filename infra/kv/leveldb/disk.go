// SPDX-License-Identifier: Apache-2.0

package leveldb

import (
	"fmt"
	"sync"

	"github.com/syndtr/goleveldb/leveldb/storage"

	"github.com/manormq/manor/infra/kv"
)

// disk is the library's storage with an eye on the journals that are open for
// writing. The library flushes each record to its journal's file before Write
// returns, so that syncing the files is all that an empty synced batch needs.
type disk struct {
	storage.Storage

	mu       sync.Mutex
	journals map[*journal]struct{} // guarded by mu: open for writing
	closed   bool                  // guarded by mu
	failed   error                 // guarded by mu: see noteLocked
}

// Create implements storage.Storage.
func (d *disk) Create(fd storage.FileDesc) (storage.Writer, error) {
	w, err := d.Storage.Create(fd)
	if err != nil || fd.Type != storage.TypeJournal {
		return w, err
	}
	j := &journal{Writer: w, disk: d}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.journals == nil {
		d.journals = make(map[*journal]struct{})
	}
	d.journals[j] = struct{}{}
	return j, nil
}

// Close implements storage.Storage.
func (d *disk) Close() error {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	return d.Storage.Close()
}

// syncJournals returns when every record that was written before is on stable
// storage.
func (d *disk) syncJournals() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return kv.ErrClosed
	}
	for j := range d.journals {
		d.noteLocked(j.Sync())
	}
	return d.failed
}

// noteLocked keeps the first error of a sync. The kernel tells one once, and counts what it
// could not write as written: a later sync that succeeds says nothing of it.
func (d *disk) noteLocked(err error) {
	if err != nil && d.failed == nil {
		d.failed = fmt.Errorf("%w: a sync of the journal failed, and what was written before may be lost: %w; start the broker anew once the disk is well", kv.ErrCorrupt, err)
	}
}

// journal is a journal file that syncs before it closes: the library closes
// it, without a sync, when the memory table that it backs is full.
type journal struct {
	storage.Writer
	disk *disk
}

// Close implements storage.Writer.
func (j *journal) Close() error {
	j.disk.mu.Lock()
	defer j.disk.mu.Unlock()
	delete(j.disk.journals, j)
	j.disk.noteLocked(j.Sync())
	if err := j.disk.failed; err != nil {
		_ = j.Writer.Close()
		return err
	}
	return j.Writer.Close()
}
