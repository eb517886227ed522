// SPDX-License-Identifier: Apache-2.0

package leveldb

import (
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
		if err := j.Sync(); err != nil {
			return err
		}
	}
	return nil
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
	if err := j.Sync(); err != nil {
		_ = j.Writer.Close()
		return err
	}
	return j.Writer.Close()
}
