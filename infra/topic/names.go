// SPDX-License-Identifier: Apache-2.0

package topic

import (
	"encoding/binary"
	"strings"

	"github.com/tidwall/btree"
)

// Names maps topic names to values and finds all names that a filter matches,
// in order. The zero Names is empty. It is changed in place: one goroutine owns
// it.
//
// The order compares level by level, bytes within a level, and puts a name
// before those that continue it: what lies below a level is one range.
type Names[T any] struct {
	tree *btree.BTreeG[entry[T]]
}

type entry[T any] struct {
	name []byte
	v    T
}

// Compare is the order of Names: negative if a comes before b.
func Compare(a, b []byte) int {
	n, i := min(len(a), len(b)), 0
	for i+8 <= n && binary.LittleEndian.Uint64(a[i:]) == binary.LittleEndian.Uint64(b[i:]) {
		i += 8
	}
	for ; i < n; i++ {
		switch x, y := a[i], b[i]; {
		case x == y:
		case x == '/':
			return -1 // a's level is the shorter one
		case y == '/':
			return 1
		default:
			return int(x) - int(y)
		}
	}
	return len(a) - len(b)
}

// Len is the number of names.
func (t *Names[T]) Len() int {
	if t.tree == nil {
		return 0
	}
	return t.tree.Len()
}

// Get returns the value of name.
func (t *Names[T]) Get(name []byte) (v T, ok bool) {
	if t.tree == nil {
		return v, false
	}
	e, ok := t.tree.Get(entry[T]{name: name})
	return e.v, ok
}

// Put sets the value of name and returns the one before. It keeps the bytes of this name,
// also if there is an equal one, and they must not change any more.
func (t *Names[T]) Put(name []byte, v T) (old T, was bool) {
	if t.tree == nil {
		t.tree = btree.NewBTreeGOptions(func(a, b entry[T]) bool { return Compare(a.name, b.name) < 0 }, btree.Options{NoLocks: true})
	}
	e, was := t.tree.Set(entry[T]{name, v})
	return e.v, was
}

// Delete removes name and returns its value.
func (t *Names[T]) Delete(name []byte) (old T, was bool) {
	if t.tree == nil {
		return old, false
	}
	e, was := t.tree.Delete(entry[T]{name: name})
	return e.v, was
}

// All visits in order every name, those that begin with $ included, until
// visit returns false. visit must not change t.
func (t *Names[T]) All(visit func(name []byte, v T) bool) {
	if t.tree != nil {
		t.tree.Scan(func(e entry[T]) bool { return visit(e.name, e.v) })
	}
}

// MatchFilter visits in order the names that filter (valid, no $share prefix)
// matches, until visit returns false. If after is not empty, only names behind
// it are visited; after itself need not exist. visit must not change t.
func (t *Names[T]) MatchFilter(filter string, after []byte, visit func(name []byte, v T) bool) {
	if t.tree == nil {
		return
	}
	it := t.tree.Iter()
	defer it.Release()
	bound := append([]byte(nil), literal(filter)...)
	if len(after) > 0 && Compare(after, bound) >= 0 {
		bound = append(append(bound[:0], after...), following)
	}
	more := it.Seek(entry[T]{name: bound})
	if prefix, whole := strings.CutSuffix(filter, "/#"); whole && !HasWildcard(prefix) {
		if more {
			t.matchBelow(&it, append(append(bound[:0], prefix...), behindAll), visit)
		}
		return
	}
	for more {
		e := it.Item()
		var match, done bool
		match, bound, done = look(filter, e.name, bound[:0])
		switch {
		case done || match && !visit(e.name, e.v):
			return
		case len(bound) == 0:
			more = it.Next()
		default:
			more = skip(&it, bound)
		}
	}
}

// matchBelow visits what comes before end. Names lie scattered in memory: those of a batch
// are looked at in a loop of their own, so that the processor fetches many at a time.
func (t *Names[T]) matchBelow(it *btree.IterG[entry[T]], end []byte, visit func(name []byte, v T) bool) {
	var batch [32]entry[T]
	for more := true; more; {
		n, below := 0, 0
		for ; n < len(batch) && more; more = it.Next() {
			batch[n] = it.Item()
			n++
		}
		for _, e := range batch[:n] {
			if Compare(e.name, end) < 0 {
				below++
			}
		}
		for _, e := range batch[:below] {
			if !visit(e.name, e.v) {
				return
			}
		}
		more = more && below == n
	}
}

const (
	// following, behind a name, is the first of all names that come after it.
	following = '/'
	// behindAll, behind a name, comes after all that continue it by levels and before
	// every other name: no name has this byte [MQTT-1.5.4-2].
	behindAll = 0
)

// skipNear is how many names are passed one by one before the tree is searched.
const skipNear = 4

// skip goes on to the first name that is not before bound.
func skip[T any](it *btree.IterG[entry[T]], bound []byte) (more bool) {
	for range skipNear {
		if !it.Next() {
			return false
		}
		if Compare(it.Item().name, bound) >= 0 {
			return true
		}
	}
	return it.Seek(entry[T]{name: bound})
}

// literal is what all names that filter matches begin with: its levels before the first
// wildcard.
func literal(filter string) string {
	i := strings.IndexAny(filter, "+#")
	if i < 0 {
		return filter
	}
	return strings.TrimSuffix(filter[:i], "/")
}

// look says whether filter matches name, and where the next one may be that it matches:
// not before bound, which is appended to dst and empty if it is any name behind; done
// says that there is none.
func look(filter string, name, dst []byte) (match bool, bound []byte, done bool) {
	if name[0] == '$' && (filter[0] == '+' || filter[0] == '#') { // [MQTT-4.7.2-1]
		return false, append(dst, '$'+1), false
	}
	// All names that begin with name[:plus], whose last level a + stands for, are behind
	// those of the level before.
	start, plus := 0, -1
	for {
		if filter == "#" {
			return true, dst, false
		}
		level, tail, more := cut(filter)
		end := start
		for end < len(name) && name[end] != '/' {
			end++
		}
		switch word := name[start:end]; {
		case level == "+":
			plus = end
		case string(word) < level:
			return false, append(append(dst, name[:start]...), level...), false
		case string(word) > level:
			return beyond(name, plus, dst)
		}
		switch last := end == len(name); {
		case !more && last:
			return true, dst, false
		case !more:
			return beyond(name, plus, dst)
		case last:
			return tail == "#", dst, false // sport/# matches sport too [MQTT-4.7.1-1]
		}
		filter, start = tail, end+1
	}
}

// beyond is what look returns if nothing more can match below the last level that a +
// stands for.
func beyond(name []byte, plus int, dst []byte) (match bool, bound []byte, done bool) {
	if plus < 0 {
		return false, dst, true
	}
	return false, append(append(dst, name[:plus]...), behindAll), false
}
