// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"bytes"
	"errors"
	"slices"
	"strings"

	"github.com/manormq/manor/infra/kv"
)

// view is the store as it will be when the batch of this turn is written. It
// belongs to the Machine. The first failure to read stays in err: what is read
// after it means nothing, and the turn is not written.
type view struct {
	store  kv.Store
	writes map[byte]map[string][]byte // of this turn, by group; nil is a delete
	batch  *kv.Batch
	err    error
}

// get returns nil if there is nothing under key. The result is not to be changed.
func (v *view) get(key []byte) []byte {
	if value, ok := v.writes[groupAt(key)][string(key)]; ok {
		return value
	}
	value, err := v.store.Get(key)
	if err != nil && !errors.Is(err, kv.ErrNotFound) {
		v.fail(err)
	}
	return value
}

// put takes value over.
func (v *view) put(key, value []byte) {
	if value == nil {
		value = []byte{}
	}
	v.note(key, value)
	v.batch.Put(key, value)
}

func (v *view) delete(key []byte) {
	v.note(key, nil)
	v.batch.Delete(key)
}

func (v *view) note(key, value []byte) {
	g := groupAt(key)
	if v.writes[g] == nil {
		v.writes[g] = map[string][]byte{}
	}
	v.writes[g][string(key)] = value
}

func (v *view) fail(err error) {
	if v.err == nil {
		v.err = err
	}
}

// scan calls f with the entries of [start, end), which are of one group, in order,
// until f returns false.
// f may write; what it writes is not met. The slices are valid until f returns.
func (v *view) scan(start, end []byte, f func(key, value []byte) bool) {
	writes := v.writes[groupAt(start)]
	var own []string // keys of this turn
	for k := range writes {
		if k >= string(start) && k < string(end) {
			own = append(own, k)
		}
	}
	slices.SortFunc(own, strings.Compare)
	values := make([][]byte, len(own))
	for i, k := range own {
		values[i] = writes[k]
	}
	it := v.store.Scan(start, end)
	defer it.Close()
	more := it.Next()
	for more || len(own) > 0 {
		if len(own) == 0 || more && string(it.Key()) < own[0] {
			if !f(it.Key(), it.Value()) {
				return
			}
			more = it.Next()
			continue
		}
		if more && bytes.Equal(it.Key(), []byte(own[0])) {
			more = it.Next()
		}
		if values[0] != nil && !f([]byte(own[0]), values[0]) {
			return
		}
		own, values = own[1:], values[1:]
	}
	if err := it.Err(); err != nil {
		v.fail(err)
	}
}

// written forgets the writes of the turn: the store has them.
func (v *view) written() { clear(v.writes) }
