// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"testing"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/infra/kv/mem"
)

func TestPowerLost(t *testing.T) {
	store := mem.New()
	want := func(what string, boot string, want bool) {
		t.Helper()
		got, err := powerLost(store, []byte(boot))
		if err != nil || got != want {
			t.Errorf("%s: %v, %v, expected %v", what, got, err, want)
		}
	}
	want("a new store", "one", false)
	var b kv.Batch
	b.Put(partitionsKey, nil)
	if err := store.Apply(&b, true); err != nil {
		t.Fatal(err)
	}
	want("a store that was never found whole", "one", true)
	if err := noteBoot(store, []byte("one")); err != nil {
		t.Fatal(err)
	}
	want("the process was started again", "one", false)
	want("the machine was", "two", true)
	want("nobody knows", "", true)
}
