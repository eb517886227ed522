// SPDX-License-Identifier: Apache-2.0

package link_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/link/linktest"
	"github.com/manormq/manor/infra/wire"
)

func upTo(n int) []uint16 {
	out := make([]uint16, n)
	for i := range out {
		out[i] = uint16(i)
	}
	return out
}

// What Cell draws is where sessions are, and must never change.
func TestCell_Golden(t *testing.T) {
	for _, c := range []struct {
		tenant string
		m, of  int
		want   []uint16
	}{
		{"acme", 1, 64, []uint16{48}},
		{"acme", 4, 64, []uint16{15, 16, 23, 48}},
		{"größe", 4, 64, []uint16{4, 11, 47, 56}},
		{"a", 2, 3, []uint16{0, 2}},
		{"acme", 8, 1024, []uint16{102, 264, 394, 593, 750, 810, 909, 913}},
		{"globex", 1, 1024, []uint16{652}},
	} {
		if got := link.Cell(c.tenant, c.m, upTo(c.of)); !slices.Equal(got, c.want) {
			t.Errorf("Cell(%q, %d) of %d partitions = %v, want %v", c.tenant, c.m, c.of, got, c.want)
		}
	}
	for _, m := range []int{-1, 0, 8, 9} {
		if got := link.Cell("acme", m, upTo(8)); len(got) != 8 {
			t.Errorf("Cell with m = %d has %v, expected all", m, got)
		}
	}
}

// A cell has as many partitions as it should, each once and in order; they are drawn
// evenly; one that is larger has all of the smaller one; and the clients of one tenant
// are spread evenly over its cell.
func TestCell_Properties(t *testing.T) {
	const tenants, of = 4000, 64
	drawn := make([]int, of)
	for i := range tenants {
		tenant := fmt.Sprint("tenant-", i)
		small, large := link.Cell(tenant, 4, upTo(of)), link.Cell(tenant, 5, upTo(of))
		if len(small) != 4 || !slices.IsSorted(small) || len(slices.Compact(slices.Clone(small))) != 4 {
			t.Fatalf("%v", small)
		}
		for _, p := range small {
			drawn[p]++
			if !slices.Contains(large, p) {
				t.Fatalf("%v has not all of %v", large, small)
			}
		}
	}
	for p, n := range drawn {
		if want := tenants * 4 / of; n < want*7/10 || n > want*13/10 {
			t.Errorf("partition %d was drawn %d times, expected about %d", p, n, want)
		}
	}
	cell := link.Cell("acme", 4, upTo(of))
	clients := map[uint16]int{}
	for i := range 4000 {
		clients[link.Choose(cell, fmt.Sprint("client-", i))]++
	}
	for _, p := range cell {
		if n := clients[p]; n < 850 || n > 1150 {
			t.Errorf("partition %d has %d of 4000 clients", p, n)
		}
	}
}

// A gateway draws as brokers do, takes what it is told of a tenant by revision, and forgets
// neither with a later table.
func TestTable_Cells(t *testing.T) {
	var table link.Table
	check := func(what, tenant string, m int, want []uint16, revision uint64) {
		t.Helper()
		got, r := table.Cell(tenant, m)
		if !slices.Equal(got, want) || r != revision {
			t.Errorf("%s: the cell of %s is %v at %d, expected %v at %d", what, tenant, got, r, want, revision)
		}
	}
	check("before a table", "acme", 4, nil, 0)
	table.Apply(&link.TableUpdate{Partitions: 16})
	check("a broker that knows no cells", "acme", 0, upTo(16), 0)
	told := &link.TableUpdate{Partitions: 16, Shared: 12, Cells: []link.TableCell{{Tenant: "acme", Revision: 2, Partitions: []uint16{12, 13}}}}
	if !table.Apply(told) || table.Apply(told) {
		t.Error("what is told changes something once")
	}
	check("placed", "acme", 4, []uint16{12, 13}, 2)
	check("drawn", "small", 2, link.Cell("small", 2, upTo(12)), 0)
	check("drawn again", "small", 2, link.Cell("small", 2, upTo(12)), 0)
	check("of all", "large", 0, upTo(12), 0)
	check("of more than there are", "large", 99, upTo(12), 0)
	table.Apply(&link.TableUpdate{Partitions: 16, Shared: 12, Cells: []link.TableCell{{Tenant: "acme", Revision: 1, Partitions: []uint16{3}}}})
	check("an older word", "acme", 4, []uint16{12, 13}, 2)
	table.Apply(&link.TableUpdate{Partitions: 16, Owners: []link.TableOwner{{Partition: 13, Epoch: 5, Broker: "b1"}}})
	check("a broker that says nothing of cells", "acme", 4, []uint16{12, 13}, 2)
	table.Moved(&link.Moved{Partition: 12, Epoch: 9, Broker: "b2"})
	check("after Moved", "acme", 4, []uint16{12, 13}, 2)
	for _, id := range []string{"a", "b", "c", "d"} {
		p := link.Choose([]uint16{12, 13}, id)
		want := map[uint16]string{12: "b2", 13: "b1"}[p]
		if b, got, _, ok := table.Owner("acme", 4, id); got != p || b != want || !ok {
			t.Errorf("%s is in %d of %s, expected %d of %s", id, got, b, p, want)
		}
	}
	table.Apply(&link.TableUpdate{Partitions: 16, Shared: 12, Cells: []link.TableCell{{Tenant: "acme", Revision: 3}}})
	check("given back", "acme", 2, link.Cell("acme", 2, upTo(12)), 3)
}

// A gateway that knows no cells is told nothing of them, and owners as before.
func TestDown_WithoutCells(t *testing.T) {
	full := &link.TableUpdate{
		Partitions: 4, Shared: 3, Cells: []link.TableCell{{Tenant: "acme", Revision: 2, Partitions: []uint16{3}}},
		Owners: []link.TableOwner{{Partition: 3, Epoch: 5, Broker: "b1"}},
	}
	bare := &link.TableUpdate{Partitions: 4, Owners: full.Owners}
	for features, want := range map[uint32]*link.TableUpdate{link.Features: full, link.Features &^ link.FeatureCells: bare} {
		a, b := wire.Pipe()
		var broker *wire.Conn
		var err error
		var wg sync.WaitGroup
		wg.Go(func() { broker, err = wire.New(t.Context(), b, wire.Config{Node: "broker-1", Features: link.Features}) })
		gateway, gerr := wire.New(t.Context(), a, wire.Config{Node: "gateway-1", Features: features})
		if wg.Wait(); err != nil || gerr != nil {
			t.Fatal(err, gerr)
		}
		go func() {
			_ = link.Accept(t.Context(), broker, func(gw link.Gateway, _ string) link.Broker {
				gw.Receive(&link.Down{Frames: []link.DownFrame{{Kind: link.DownTable, Table: full}}})
				gw.Flush()
				return noBroker{}
			})
		}()
		g := linktest.NewGateway()
		l := link.Connect(gateway, g)
		linktest.Until(t, "a table", func() bool { f, _ := g.Flushed(); return len(f) == 1 })
		frames, _ := g.Flushed()
		if diff := cmp.Diff(want, frames[0].Table); diff != "" {
			t.Errorf("with the features %b (-want +got):\n%s", features, diff)
		}
		_ = l.Close()
	}
	if len(full.Cells) != 1 {
		t.Error("what others are told has changed")
	}
}
