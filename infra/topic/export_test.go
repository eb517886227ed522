// SPDX-License-Identifier: Apache-2.0

package topic

// Empty reports whether no node is left.
func (t *Trie[T]) Empty() bool { return t.root == nil && t.n == 0 }

// Empty reports whether no node is left.
func (s *Snapshot[T]) Empty() bool { return s == nil || s.root == nil && s.n == 0 }

// Empty reports whether no node is left.
func (t *Names[T]) Empty() bool { return len(t.root.kids) == 0 && t.n == 0 }
