// SPDX-License-Identifier: Apache-2.0

package kv

import "errors"

// The errors that a caller can act on. Stores wrap them; test with errors.Is.
var (
	// ErrNotFound says that no value is stored under the key.
	ErrNotFound = errors.New("kv: not found")
	// ErrClosed says that the store was closed before the call.
	ErrClosed = errors.New("kv: store is closed")
	// ErrLocked says that another process (or another Open of this one) holds
	// the store's folder.
	ErrLocked = errors.New("kv: store is in use")
	// ErrCorrupt says that what is on disk cannot be read as what was written.
	ErrCorrupt = errors.New("kv: store is corrupt")
)

// Store is an ordered map from keys to values, compared as bytes. All methods
// may be called concurrently, Close once and last.
type Store interface {
	// Get returns the value under key, or ErrNotFound. The result belongs to
	// the caller.
	Get(key []byte) ([]byte, error)
	// Scan walks the keys from start (included) to end (excluded) in order, as
	// they were at the moment of the call; a nil start is the first key, a nil
	// end is past the last. The caller closes the Iterator.
	Scan(start, end []byte) Iterator
	// Apply writes b: all of it or nothing, also across a crash. Later entries
	// of b win over earlier ones of the same key. With sync it returns when b
	// and every batch that was applied before are on stable storage, also if b
	// is empty; without, a crash of the process keeps b and a power cut may
	// take it, together with everything applied after it. Apply reads b and
	// keeps nothing of it.
	Apply(b *Batch, sync bool) error
	// Close releases the store. What was applied stays.
	Close() error
}

// Iterator is one ordered walk over a Store. It is owned by one goroutine and
// begins before the first entry.
type Iterator interface {
	// Next moves to the next entry. It returns false at the end and after an
	// error.
	Next() bool
	// Key is the key of the entry, valid until the next call of Next or Close.
	Key() []byte
	// Value is the value of the entry, valid as long as Key.
	Value() []byte
	// Err is what ended the walk early, nil if nothing did.
	Err() error
	// Close ends the walk. It may be called more than once.
	Close()
}

// PrefixEnd returns the end of a Scan over the keys that begin with prefix: the
// smallest key greater than all of them, nil if there is none. It appends to
// dst, which may be nil but must not share memory with prefix.
func PrefixEnd(dst, prefix []byte) []byte {
	for n := len(prefix); n > 0; n-- {
		if c := prefix[n-1]; c != 0xFF {
			dst = append(dst, prefix[:n-1]...)
			return append(dst, c+1)
		}
	}
	return nil
}
