// SPDX-License-Identifier: Apache-2.0

package partition

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var messages = []Message{
	{Kind: Probe, Partition: 7, Epoch: 3, Session: 9},
	{Kind: Records, Partition: 1, Epoch: 3, Session: 9, Run: 5, Last: Last{2, 10}, Need: 11, Records: []Record{
		{Last{2, 11}, []byte("one")}, {Last{3, 12}, []byte{}},
	}},
	{Kind: Piece, Epoch: 3, Session: 9, Run: 5, Snapshot: 8, Part: 2, Done: true, Last: Last{3, 12}, Batch: []byte("batch")},
	{Kind: Answer, Partition: 65535, Epoch: 4, Session: 9, Run: 5, Last: Last{3, 12}, Copy: Whole, Gap: true, Snapshot: 8, Part: 1},
}

func TestMessage(t *testing.T) {
	for _, m := range messages {
		b := m.Append(nil)
		got, err := ParseMessage(b)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(m, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if m.Kind == Piece {
			continue // it takes all that is left as its batch
		}
		if _, err := ParseMessage(append(b, 0)); err == nil {
			t.Errorf("kind %d: a byte too many is taken", m.Kind)
		}
	}
}

// FuzzMessage holds that what parses encodes to the same bytes.
func FuzzMessage(f *testing.F) {
	for _, m := range messages {
		f.Add(m.Append(nil))
	}
	f.Add([]byte{messageVersion, 9})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseMessage(b)
		if err != nil {
			return
		}
		if again := m.Append(nil); !bytes.Equal(again, b) {
			t.Errorf("%x parses, and encodes as %x", b, again)
		}
	})
}

var entries = []Entry{
	{Epoch: 1, Owner: "a", InSync: []Broker{"a"}},
	{Epoch: 9, Owner: "b", InSync: []Broker{"a", "b"}, Others: []Broker{"broker-3"}, Draining: true, Abandoned: true},
}

func TestEntry(t *testing.T) {
	for _, e := range entries {
		got, err := ParseEntry(e.Append(nil))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(e, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	for _, bad := range []Entry{
		{Epoch: 0, Owner: "a", InSync: []Broker{"a"}},
		{Epoch: 1, Owner: "b", InSync: []Broker{"a"}},
		{Epoch: 1, Owner: "a", InSync: []Broker{"a", "a"}},
		{Epoch: 1, Owner: "a", InSync: []Broker{"a"}, Others: []Broker{"a"}},
		{Epoch: 1, Owner: "", InSync: []Broker{""}},
	} {
		if e, err := ParseEntry(bad.Append(nil)); err == nil {
			t.Errorf("%+v is taken as %+v", bad, e)
		}
	}
	e := Entry{Owner: "b", InSync: []Broker{"a", "b", "c"}}
	if e.rank("a") != 0 || e.rank("c") != 1 {
		t.Errorf("ranks %d and %d, expected 0 and 1", e.rank("a"), e.rank("c"))
	}
}

// FuzzEntry holds that what parses encodes to the same bytes.
func FuzzEntry(f *testing.F) {
	for _, e := range entries {
		f.Add(e.Append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ParseEntry(b)
		if err != nil {
			return
		}
		if again := e.Append(nil); !bytes.Equal(again, b) {
			t.Errorf("%x parses, and encodes as %x", b, again)
		}
	})
}
