// SPDX-License-Identifier: Apache-2.0

package nats

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// event is what a watch tells of a key.
type event struct {
	jetstream.KeyValueEntry
	key      string
	revision uint64
	deleted  bool
}

func (e event) Key() string        { return e.key }
func (e event) Value() []byte      { return nil }
func (e event) Created() time.Time { return time.Time{} }
func (e event) Revision() uint64   { return e.revision }

func (e event) Operation() jetstream.KeyValueOp {
	if e.deleted {
		return jetstream.KeyValueDelete
	}
	return jetstream.KeyValuePut
}

// TestCollect_Behind: a server that has not all revisions yet tells of a key that was
// deleted; it is neither handed out nor counted, however few are asked for.
func TestCollect_Behind(t *testing.T) {
	updates := make(chan jetstream.KeyValueEntry, 8)
	for _, e := range []jetstream.KeyValueEntry{
		event{key: "a", revision: 1}, event{key: "b", revision: 2}, event{key: "c", revision: 3}, nil, event{key: "a", revision: 4, deleted: true},
	} {
		updates <- e
	}
	entries, more, err := collect(t.Context(), updates, 4, 2)
	if err != nil || more || len(entries) != 2 {
		t.Fatalf("got %v, more %v, %v; want b and c", entries, more, err)
	}
	for _, e := range entries {
		if e.Key == "a" {
			t.Error("a deleted key is handed out")
		}
	}
}
