// SPDX-License-Identifier: Apache-2.0

// Package leveldb is kv.Store on goleveldb: a folder on a local disk that one
// process holds at a time.
//
// The library owns the goroutines (compaction); Close ends them. The package
// knows no key: what is stored is the business of whoever holds the Store.
//
// Two things are added to the library. A journal file is synced before it is
// closed, so that a synced write covers also what was written, unsynced, to
// the journal before. And an empty batch can be synced.
package leveldb

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"syscall"

	"github.com/syndtr/goleveldb/leveldb"
	lverrors "github.com/syndtr/goleveldb/leveldb/errors"
	"github.com/syndtr/goleveldb/leveldb/filter"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/storage"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/manormq/manor/infra/kv"
)

// Options are the knobs of a store. The zero value of a field means its
// default.
type Options struct {
	// WriteBuffer is how many bytes of writes are held in memory, and in the
	// journal, before they become a table: 32 MiB by default. Up to twice as
	// much is held while a table is written. What a start has to read again
	// grows with it.
	WriteBuffer int
	// BlockCache is how many bytes of table blocks stay in memory: 8 MiB by
	// default, none if negative.
	BlockCache int
	// OpenFiles is how many tables stay open: 256 by default.
	OpenFiles int
	// Compression squeezes tables with snappy. Off by default: payloads of
	// devices are short and mostly compressed already.
	Compression bool
	// Repair rebuilds the manifest from the tables when it cannot be read,
	// instead of failing with kv.ErrCorrupt. Deleted keys may come back.
	Repair bool
}

func (o Options) library() *opt.Options {
	lo := &opt.Options{
		WriteBuffer:            32 << 20,
		CompactionTableSize:    8 << 20,
		CompactionTotalSize:    64 << 20,
		OpenFilesCacheCapacity: 256,
		Compression:            opt.NoCompression,
		Filter:                 filter.NewBloomFilter(10),
		BlockCacheCapacity:     o.BlockCache, // 0 and negative mean the same to the library
	}
	if o.WriteBuffer > 0 {
		lo.WriteBuffer = o.WriteBuffer
	}
	if o.OpenFiles > 0 {
		lo.OpenFilesCacheCapacity = o.OpenFiles
	}
	if o.Compression {
		lo.Compression = opt.SnappyCompression
	}
	return lo
}

// Store is a kv.Store in a folder.
type Store struct {
	db      *leveldb.DB
	disk    *disk
	batches sync.Pool // of *leveldb.Batch: the index of a batch, its bytes are the caller's
}

var _ kv.Store = (*Store)(nil)

// Open opens the store in the folder dir and makes both if they are missing.
// What a process that was killed had applied is there; a record that it was
// writing at that moment is dropped as a whole.
//
// The error wraps kv.ErrLocked if another process holds the folder, and
// kv.ErrCorrupt if the folder cannot be read and Options.Repair is not set.
func Open(dir string, o Options) (*Store, error) {
	files, err := storage.OpenFile(dir, false)
	if err != nil {
		if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("open store %s: %w (another process holds its LOCK)", dir, kv.ErrLocked)
		}
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	s, err := OpenStorage(files, o)
	if err != nil {
		_ = files.Close()
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	return s, nil
}

// OpenStorage opens the store in files, which the library's storage package
// makes (in memory for tests). Close closes files too; they stay open if
// OpenStorage fails.
func OpenStorage(files storage.Storage, o Options) (*Store, error) {
	d := &disk{Storage: files}
	db, err := leveldb.Open(d, o.library())
	if lverrors.IsCorrupted(err) && o.Repair {
		db, err = leveldb.Recover(d, o.library())
	}
	if err != nil {
		return nil, translate(err)
	}
	return &Store{db: db, disk: d, batches: sync.Pool{New: func() any { return new(leveldb.Batch) }}}, nil
}

// Get implements kv.Store.
func (s *Store) Get(key []byte) ([]byte, error) {
	v, err := s.db.Get(key, nil)
	if err != nil {
		return nil, translate(err)
	}
	return v, nil
}

// Scan implements kv.Store.
func (s *Store) Scan(start, end []byte) kv.Iterator {
	if end != nil && bytes.Compare(start, end) > 0 {
		end = start // the library panics on a range that ends before it starts
	}
	return iterator{s.db.NewIterator(&util.Range{Start: start, Limit: end}, nil)}
}

// Apply implements kv.Store. Concurrent calls are written one after another.
func (s *Store) Apply(b *kv.Batch, sync bool) error {
	if b.Len() == 0 {
		if !sync {
			return nil
		}
		return s.disk.syncJournals()
	}
	lb := s.batches.Get().(*leveldb.Batch)
	defer s.batches.Put(lb)
	if err := lb.Load(b.Encoded()); err != nil {
		return translate(err)
	}
	// NoWriteMerge: the caller commits groups itself, and the library's way of
	// merging costs two hand-overs between goroutines for each batch.
	// And a sync of its own would hold up all other writes.
	err := s.db.Write(lb, &opt.WriteOptions{NoWriteMerge: true})
	_ = lb.Load(nil) // forget the caller's bytes
	switch {
	case err != nil:
		return translate(err)
	case sync:
		return s.disk.syncJournals()
	}
	return nil
}

// Close implements kv.Store.
func (s *Store) Close() error {
	err := s.db.Close()
	if errors.Is(err, leveldb.ErrClosed) {
		return kv.ErrClosed
	}
	return errors.Join(err, s.disk.Close())
}

// iterator adds translated errors to the library's.
type iterator struct {
	it interface {
		Next() bool
		Key() []byte
		Value() []byte
		Error() error
		Release()
	}
}

func (i iterator) Next() bool    { return i.it.Next() }
func (i iterator) Key() []byte   { return i.it.Key() }
func (i iterator) Value() []byte { return i.it.Value() }
func (i iterator) Close()        { i.it.Release() }

func (i iterator) Err() error {
	err := i.it.Error()
	if err == nil || errors.Is(err, leveldb.ErrIterReleased) {
		return nil
	}
	return translate(err)
}

// translate says a library error in the words of package kv.
func translate(err error) error {
	switch {
	case errors.Is(err, leveldb.ErrNotFound):
		return kv.ErrNotFound
	case errors.Is(err, leveldb.ErrClosed):
		return kv.ErrClosed
	case errors.Is(err, storage.ErrLocked):
		return kv.ErrLocked
	case lverrors.IsCorrupted(err):
		return fmt.Errorf("%w: %w", kv.ErrCorrupt, err)
	}
	return err
}
