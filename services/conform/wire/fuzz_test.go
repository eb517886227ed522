// SPDX-License-Identifier: Apache-2.0

package wire_test

import (
	"bufio"
	"bytes"
	"testing"

	"github.com/manormq/manor/services/conform/wire"
)

// FuzzRead: no bytes make the decoder fail in another way than by an error, and
// what it takes is encoded to the same meaning.
func FuzzRead(f *testing.F) {
	for _, b := range []string{
		"\x20\x06\x00\x00\x03\x21\x00\x14", "\x3B\x06\x00\x01t\x01\x02x", "\x40\x03\x00\x01\x10", "\x90\x04\x00\x01\x00\x80",
		"\xB0\x04\x00\x01\x00\x11", "\xD0\x00", "\xE0\x01\x8E", "\xF0\x07\x18\x05\x15\x00\x01mx", "\x30\x0A\x00\x01t\x05\x0B\x80\x01\x0B\x7Fx",
	} {
		f.Add([]byte(b), byte(wire.V5))
		f.Add([]byte(b), byte(wire.V311))
	}
	f.Fuzz(func(t *testing.T, b []byte, version byte) {
		v := wire.Version(version%3) + wire.V31
		p, err := wire.Read(bufio.NewReader(bytes.NewReader(b)), v)
		if err != nil || p.Kind == wire.Connack {
			return
		}
		again, err := wire.Append(nil, v, p)
		if err != nil {
			// 3.x has acknowledgements without codes.
			t.Fatalf("%s of %s cannot be encoded: %v", p, v, err)
		}
		q, err := wire.Read(bufio.NewReader(bytes.NewReader(again)), v)
		if err != nil || p.String() != q.String() {
			t.Fatalf("%s of %s comes back as %s (%v)", p, v, q, err)
		}
	})
}
