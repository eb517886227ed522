// SPDX-License-Identifier: Apache-2.0

package kv_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/manormq/manor/infra/kv"
)

func writes(b *kv.Batch) []string {
	var out []string
	b.Each(func(put bool, key, value []byte) {
		if put {
			out = append(out, string(key)+"="+string(value))
		} else {
			out = append(out, "-"+string(key))
		}
	})
	return out
}

func TestBatch(t *testing.T) {
	var a, b kv.Batch
	a.Put([]byte("k"), []byte("v"))
	a.Delete([]byte("d"))
	b.Put(nil, nil)
	b.Append(&a)
	b.Append(&a)
	want := []string{"=", "k=v", "-d", "k=v", "-d"}
	if diff := cmp.Diff(want, writes(&b)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if b.Len() != 5 || a.Len() != 2 {
		t.Errorf("Len is %d and %d, want 5 and 2", b.Len(), a.Len())
	}
	var c kv.Batch
	if err := c.Decode(b.Encoded()); err != nil {
		t.Fatal(err)
	}
	b.Reset()
	if b.Len() != 0 || b.Size() != 0 || writes(&b) != nil {
		t.Errorf("a reset batch has %v", writes(&b))
	}
	if diff := cmp.Diff(want, writes(&c)); diff != "" || c.Len() != 5 {
		t.Errorf("Decode, Len %d (-want +got):\n%s", c.Len(), diff)
	}
}

func TestBatch_DecodeRefusesWhatIsNoBatch(t *testing.T) {
	for _, bad := range []string{"\x02", "\x01", "\x00\x05ab", "\x01\x01k", "\x01\x01k\x02v", "\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"} {
		var b kv.Batch
		if err := b.Decode([]byte(bad)); !errors.Is(err, kv.ErrCorrupt) || b.Len() != 0 {
			t.Errorf("Decode(%q) = %v with %d writes, want ErrCorrupt with none", bad, err, b.Len())
		}
	}
}

func TestBatch_DoesNotAllocateInSteadyUse(t *testing.T) {
	var a, b kv.Batch
	k, v := []byte("key"), make([]byte, 200)
	turn := func() {
		a.Reset()
		b.Reset()
		for range 50 {
			a.Put(k, v)
			a.Delete(k)
		}
		b.Append(&a)
	}
	turn()
	if n := testing.AllocsPerRun(100, turn); n != 0 {
		t.Errorf("%v allocations for a batch in use again, want 0", n)
	}
}

func TestPrefixEnd(t *testing.T) {
	for prefix, want := range map[string]string{"a": "b", "a\xff": "b", "a\xff\x00": "a\xff\x01", "\xff\xff": "", "": ""} {
		if got := kv.PrefixEnd(nil, []byte(prefix)); string(got) != want || (want == "") != (got == nil) {
			t.Errorf("PrefixEnd(%q) = %q, want %q", prefix, got, want)
		}
	}
}

func FuzzBatch(f *testing.F) {
	var b kv.Batch
	b.Put([]byte("key"), []byte("value"))
	b.Delete([]byte("key"))
	f.Add(b.Encoded())
	f.Add([]byte("\x01\x01k\x02v"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var b, c kv.Batch
		if b.Decode(data) != nil {
			return
		}
		b.Each(func(put bool, key, value []byte) {
			if put {
				c.Put(key, value)
			} else {
				c.Delete(key)
			}
		})
		if diff := cmp.Diff(writes(&b), writes(&c)); diff != "" || b.Len() != c.Len() {
			t.Errorf("a decoded batch is not what it says:\n%s", diff)
		}
	})
}
