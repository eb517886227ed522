// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"testing"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/bus/embed"
	"github.com/manormq/manor/infra/bus/mem"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/tenancy/store/storetest"
)

func TestStore_Mem(t *testing.T) {
	storetest.Run(t, func(*testing.T) bus.Bus { return mem.New() })
}

func TestStore_Embed(t *testing.T) {
	storetest.Run(t, func(t *testing.T) bus.Bus {
		s, err := embed.Start(t.Context(), embed.Config{Dir: t.TempDir(), Log: telemetry.Discard()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Shutdown)
		b, err := s.Bus("test")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		return b
	})
}
