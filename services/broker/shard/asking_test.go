// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manormq/manor/infra/kv/mem"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/services/broker/partition"
)

// fewOwners is a cluster whose only broker, a, owns the partitions of owned.
type fewOwners struct {
	Cluster
	owned map[partition.ID]bool
}

func (c *fewOwners) Self() string      { return "a" }
func (c *fewOwners) Brokers() []string { return nil }
func (c *fewOwners) Cell(string) Cell  { return Cell{} }

func (c *fewOwners) Owner(p partition.ID) (string, uint64) {
	if c.owned[p] {
		return "a", 1
	}
	return "", 0
}

// An answer for the whole region lacks nothing in silence: while a partition has no owner,
// or its owner does not serve it yet, it waits, and says what is missing at last.
func TestAsk_SaysWhatIsMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &fewOwners{owned: map[partition.ID]bool{}}
		set, err := New(Config{Store: mem.New(), Partitions: 4, Shards: 1, Cluster: c, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- set.Run(ctx) }()
		defer func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}()
		lone := partition.Choose(set.cell, "a/b")
		for _, x := range []struct {
			filter string
			owned  []partition.ID
			want   string
		}{
			{"#", nil, "4 of 4 partitions, 0 among them, have no broker now"},
			{"#", []partition.ID{0, 1, 2, 3}, "4 of 4 partitions, 0 among them, are not served yet by a"},
			{"a/b", []partition.ID{lone}, "1 of 1 partitions"},
			{"a/b", nil, "have no broker now"},
		} {
			clear(c.owned)
			for _, p := range x.owned {
				c.owned[p] = true
			}
			begin := time.Now()
			a := set.Ask(&link.Query{Kind: link.QueryRetained, Tenant: "acme", Filter: x.filter})
			if !strings.Contains(a.Error, x.want) {
				t.Errorf("%s: %q, expected %q", x.filter, a.Error, x.want)
			}
			if waited := time.Since(begin); waited < askTime || waited > askTime+time.Second {
				t.Errorf("%s: it has waited for %v, expected %v", x.filter, waited, askTime)
			}
		}
	})
}
