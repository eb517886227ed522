// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"strings"
	"testing"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/infra/kv/mem"
	"github.com/manormq/manor/infra/telemetry"
)

// A store without a version is upgraded, one of this software stays, a newer one is
// refused.
func TestUpgradeStore(t *testing.T) {
	if len(upgrades) != storeVersion-1 {
		t.Fatalf("%d upgrades lead to version %d", len(upgrades), storeVersion)
	}
	store := mem.New()
	for range 2 {
		if err := upgradeStore(store, telemetry.Discard()); err != nil {
			t.Fatal(err)
		}
		if v, err := store.Get(versionKey); err != nil || len(v) != 2 || v[1] != storeVersion {
			t.Fatalf("the store has version %v, %v", v, err)
		}
	}
	var b kv.Batch
	b.Put(versionKey, []byte{0, storeVersion + 1})
	if err := store.Apply(&b, true); err != nil {
		t.Fatal(err)
	}
	if err := upgradeStore(store, telemetry.Discard()); err == nil || !strings.Contains(err.Error(), "newer software") {
		t.Errorf("a newer store: %v", err)
	}
}
