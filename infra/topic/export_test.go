// SPDX-License-Identifier: Apache-2.0

package topic

// Empty reports whether no node is left.
func (t *Trie[T]) Empty() bool { return t.root.empty() && t.Len() == 0 }

// Places counts the places in the table below a first level.
func (t *Trie[T]) Places(level string) (n int) {
	var last *bucket[T]
	for i, table := 0, t.root.kid([]byte(level)).rest.Load().table; i < len(table.buckets); i++ {
		if b := table.buckets[i].Load(); b != last {
			n, last = n+len(b.hashes), b
		}
	}
	return n
}
