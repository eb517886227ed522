// SPDX-License-Identifier: Apache-2.0

package queue

// What crosses to another broker of a queue without durability.

// Held is a taken entry that is held in memory, nil for others.
func (q *Queue) Held(seq uint64) *Entry {
	if e := q.flying[seq]; e != nil && e.Message != nil {
		return e
	}
	return nil
}

// AppendEntry encodes e with its message, as ParseEntry reads it. e must not refer to a
// stored body, as no entry of a queue without durability does. Its Seq and Serial are
// not encoded.
func AppendEntry(dst []byte, e *Entry) []byte { return appendEntry(dst, e) }

// ParseEntry decodes what AppendEntry wrote. Nothing of b is kept.
func ParseEntry(b []byte) (*Entry, error) {
	e, err := parseEntry(b)
	if err != nil {
		return nil, err
	}
	if e.Message == nil {
		return nil, errEntry
	}
	return &e, nil
}
