// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"errors"
	"fmt"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/services/broker/swc"
)

// Lookup returns what is seen under key in a store with this many groups; ok is
// false if it has no value. It may be called from any goroutine, and sees what is
// written.
func Lookup(store kv.Store, groups int, key Key) (v Value, ok bool, err error) {
	path := key.path()
	b, err := store.Get(storeKey(byte(groupOf(path, groups)), kindObject, path))
	if errors.Is(err, kv.ErrNotFound) {
		return Value{}, false, nil
	}
	if err != nil {
		return Value{}, false, err
	}
	c, _, err := swc.DecodeContainer(b)
	if err != nil {
		return Value{}, false, fmt.Errorf("metadata %q %q: %w", key.Space, key.Name, err)
	}
	v, ok = seen(c)
	return v, ok, nil
}

// Scan calls f with the keys of a space, or of all if space is empty, and what is
// seen under them, until f returns false. The order is that of the names within a
// group, and so none that means anything. It may be called from any goroutine, and
// sees each group at one moment.
func Scan(store kv.Store, groups int, space string, f func(Key, Value) bool) error {
	rest := ""
	if space != "" {
		rest = Key{Space: space}.path()
	}
	return scanUnder(store, groups, rest, f)
}

// ScanPrefix is Scan of the names that begin with prefix, in a space that has a name. It
// reads nothing else.
func ScanPrefix(store kv.Store, groups int, space, prefix string, f func(Key, Value) bool) error {
	return scanUnder(store, groups, Key{Space: space, Name: prefix}.path(), f)
}

func scanUnder(store kv.Store, groups int, rest string, f func(Key, Value) bool) error {
	for g := range groups {
		more, err := scanGroup(store, storeKey(byte(g), kindObject, rest), f)
		if err != nil || !more {
			return err
		}
	}
	return nil
}

func scanGroup(store kv.Store, prefix []byte, f func(Key, Value) bool) (more bool, err error) {
	it := store.Scan(prefix, kv.PrefixEnd(nil, prefix))
	defer it.Close()
	for it.Next() {
		key, err := parsePath(string(storeRest(it.Key())[1:]))
		if err != nil {
			return false, err
		}
		c, _, err := swc.DecodeContainer(append([]byte(nil), it.Value()...))
		if err != nil {
			return false, fmt.Errorf("metadata %q %q: %w", key.Space, key.Name, err)
		}
		if v, ok := seen(c); ok && !f(key, v) {
			return false, nil
		}
	}
	return true, it.Err()
}
