// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"flag"
	"fmt"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/bus/embed"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/store"
)

var purgeKeys = flag.Int("purge-keys", 2000, "how many credentials the tenant of BenchmarkPurge has")

// BenchmarkPurge removes the credentials of a tenant from a real NATS server.
func BenchmarkPurge(b *testing.B) {
	server, err := embed.Start(b.Context(), embed.Config{Dir: b.TempDir(), Log: telemetry.Discard()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(server.Shutdown)
	nc, err := server.Bus("bench")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { nc.Close() })
	s, err := store.New(b.Context(), store.Config{Bus: nc, Log: telemetry.Discard()})
	if err != nil {
		b.Fatal(err)
	}
	credentials, err := nc.Bucket(b.Context(), bus.BucketConfig{Name: tenancy.CredentialsBucket})
	if err != nil {
		b.Fatal(err)
	}
	value := make([]byte, 200)
	for b.Loop() {
		b.StopTimer()
		g, ctx := errgroup.WithContext(b.Context())
		g.SetLimit(64)
		for i := range *purgeKeys {
			g.Go(func() error {
				_, err := credentials.Put(ctx, fmt.Sprintf("acme.u%d", i), value, bus.Any)
				return err
			})
		}
		if err := g.Wait(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		removed, err := s.PurgeRecords(b.Context(), "acme")
		if err != nil || removed["credentials"] != int64(*purgeKeys) {
			b.Fatalf("removed %v, error %v", removed, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/float64(*purgeKeys), "µs/key")
}
