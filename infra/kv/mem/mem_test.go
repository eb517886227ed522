// SPDX-License-Identifier: Apache-2.0

package mem_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/infra/kv/kvtest"
	"github.com/manormq/manor/infra/kv/mem"
)

func TestStore(t *testing.T) {
	kvtest.Run(t, kvtest.Subject{
		Open: func(testing.TB) kv.Store { return mem.New() },
		Reopen: func(t testing.TB, s kv.Store) kv.Store {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s.(*mem.Store).Reopen()
			return s
		},
	})
}

func TestCrash_DropsWhatWasNotSynced(t *testing.T) {
	s := mem.New()
	kvtest.Put(t, s, false, "a", "1")
	kvtest.Put(t, s, true, "b", "2")
	kvtest.Put(t, s, false, "a", "changed", "c", "3")
	if !s.Crash() {
		t.Error("Crash says that nothing was lost, expected it to have lost the last batch")
	}
	if s.Crash() {
		t.Error("Crash says that something was lost, and nothing was written since the last one")
	}
	if diff := cmp.Diff([]kvtest.Entry{{Key: "a", Value: "1"}, {Key: "b", Value: "2"}}, kvtest.Dump(t, s, nil, nil)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	kvtest.Put(t, s, false, "d", "4")
	if err := s.Apply(new(kv.Batch), true); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s.Crash()
	if got, err := s.Get([]byte("d")); string(got) != "4" || err != nil {
		t.Errorf("an empty synced batch did not sync what was before it: %q, %v", got, err)
	}
}
