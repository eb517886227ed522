// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"fmt"

	"github.com/manormq/manor/services/broker/swc"
)

// Key names an object: a space, and a name in it. The name may be any bytes.
type Key struct{ Space, Name string }

// The longest space and name, in bytes.
const (
	MaxSpace = 255
	MaxName  = 1 << 17
)

// The keys in the store stand above every partition's prefix but the last, which
// no region reaches, and belong to this package alone. docs/store/keys.md draws
// them; a test holds the two together.
//
//	FF FF 6D | group u8 | kind u8 | the rest, by kind
const keyPrefix = "\xFF\xFF\x6D"

// The kinds of record of a group, and of the broker, which has group 0xFF.
const (
	kindClock   byte = 'c' // -> node clock
	kindDot     byte = 'k' // dot -> key that it wrote; empty if it wrote none
	kindObject  byte = 'o' // key -> container, stripped
	kindContext byte = 'v' // key -> nothing; its object is stored with a context
	kindMarks   byte = 'w' // -> watermark

	kindRoster  byte = 'r' // -> version, groups, own actor, members
	brokerGroup byte = 0xFF
)

// MaxGroups is how many groups there can be.
const MaxGroups = 64

func storeKey(group, kind byte, rest string) []byte {
	return append(append(append(make([]byte, 0, len(keyPrefix)+2+len(rest)), keyPrefix...), group, kind), rest...)
}

// groupAt is the group in a key of the store.
func groupAt(key []byte) byte { return key[len(keyPrefix)] }

// storeRest is a key of the store without prefix and group: kind and rest.
func storeRest(key []byte) []byte { return key[len(keyPrefix)+1:] }

// path is a Key as it stands in the store: the length of the space in one byte,
// the space, the name.
func (k Key) path() string { return string([]byte{byte(len(k.Space))}) + k.Space + k.Name }

func parsePath(path string) (Key, error) {
	if len(path) == 0 || len(path) < 1+int(path[0]) {
		return Key{}, fmt.Errorf("%w: %d bytes are no key", swc.ErrCorrupt, len(path))
	}
	n := 1 + int(path[0])
	return Key{path[1:n], path[n:]}, nil
}

// groupOf spreads the paths over the groups, the same on every broker and for ever.
func groupOf(path string, groups int) int { return int(hash(path) % uint64(groups)) }

// hash is FNV-1a with the last mix of splitmix64.
func hash(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return mix(h)
}

func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	x = (x ^ x>>27) * 0x94D049BB133111EB
	return x ^ x>>31
}
