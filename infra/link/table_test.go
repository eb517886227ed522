// SPDX-License-Identifier: Apache-2.0

package link_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/manormq/manor/infra/link"
)

// What Choose answers is kept in stores and must never change.
func TestChoose_Golden(t *testing.T) {
	list := func(n int) []uint16 {
		out := make([]uint16, n)
		for i := range out {
			out[i] = uint16(i)
		}
		return out
	}
	long := strings.Repeat("0123456789", 4)
	for _, c := range []struct {
		list []uint16
		name string
		want uint16
	}{
		{list(1), "a", 0},
		{list(2), "", 1},
		{list(2), "sensor-1", 1},
		{list(2), "sensor-2", 0},
		{list(2), "größe", 0},
		{list(64), "", 2},
		{list(64), "a", 31},
		{list(64), "sensor-1", 7},
		{list(64), "sensor-2", 39},
		{list(64), "auto-7", 1},
		{list(64), "größe", 41},
		{list(64), long, 9},
		{list(1024), "", 70},
		{list(1024), "a", 356},
		{list(1024), "sensor-1", 603},
		{list(1024), "sensor-2", 477},
		{list(1024), "auto-7", 710},
		{list(1024), "größe", 906},
		{list(1024), long, 202},
		{[]uint16{7, 3, 9, 65535}, "a", 3},
		{[]uint16{7, 3, 9, 65535}, "b", 3},
		{[]uint16{7, 3, 9, 65535}, "c", 65535},
	} {
		if got := link.Choose(c.list, c.name); got != c.want {
			t.Errorf("Choose(%d partitions, %q) = %d, want %d", len(c.list), c.name, got, c.want)
		}
		if got := link.Choose(c.list, []byte(c.name)); got != c.want {
			t.Errorf("Choose(%d partitions, bytes of %q) = %d, want %d", len(c.list), c.name, got, c.want)
		}
	}
}

var (
	one = link.TableBroker{Name: "b1", Address: "h1:1"}
	two = link.TableBroker{Name: "b2", Address: "h2:1"}
)

func TestTable_WithoutUpdates(t *testing.T) {
	var table link.Table
	if b, _, _, ok := table.Owner("acme", 0, "c"); b != "" || !ok {
		t.Errorf("the owner is %q, %v, expected the broker without a name", b, ok)
	}
	if table.Apply(&link.TableUpdate{Brokers: []link.TableBroker{one}}) || len(table.Brokers()) != 0 {
		t.Error("a broker that knows no partitions yet is believed")
	}
	if table.Moved(&link.Moved{Epoch: 3, Broker: "b1"}) {
		t.Error("a table without partitions takes Moved")
	}
}

// The higher epoch holds whoever tells it first, so that the tables of several
// brokers give one.
func TestTable_TheHigherEpochHolds(t *testing.T) {
	var table link.Table
	apply := func(want bool, brokers []link.TableBroker, owners ...link.TableOwner) {
		t.Helper()
		if got := table.Apply(&link.TableUpdate{Partitions: 4, Brokers: brokers, Owners: owners}); got != want {
			t.Errorf("Apply says changed: %v, want %v", got, want)
		}
	}
	owner := func(p uint16, broker string, epoch uint64, ok bool) {
		t.Helper()
		if b, e, k := table.OwnerOf(p); b != broker || e != epoch || k != ok {
			t.Errorf("partition %d is of %q, epoch %d, %v; want %q, %d, %v", p, b, e, k, broker, epoch, ok)
		}
	}
	both := []link.TableBroker{one, two}
	apply(true, both, link.TableOwner{Partition: 1, Epoch: 5, Broker: "b1"}, link.TableOwner{Partition: 2, Epoch: 1, Broker: "b2"})
	apply(false, both, link.TableOwner{Partition: 1, Epoch: 4, Broker: "b2"}) // late, from another broker
	owner(1, "b1", 5, true)
	owner(2, "b2", 1, true)
	owner(3, "", 0, false)
	owner(4, "", 0, false)
	apply(true, both, link.TableOwner{Partition: 1, Epoch: 5, Broker: "b1", Draining: true}) // draining changes
	apply(false, both, link.TableOwner{Partition: 1, Epoch: 5, Broker: "b1", Draining: true})
	apply(true, both, link.TableOwner{Partition: 1, Epoch: 6})
	owner(1, "", 6, false)
	if table.Moved(&link.Moved{Partition: 1, Epoch: 6, Broker: "b2"}) {
		t.Error("Moved of the same epoch changes the table")
	}
	if !table.Moved(&link.Moved{Partition: 1, Epoch: 7, Broker: "b2"}) {
		t.Error("Moved of a higher epoch does not change the table")
	}
	owner(1, "b2", 7, true)
	if !table.Owns("b2") || table.Owns("b1") || table.Owns("") {
		t.Error("Owns does not know that b2 owns a partition and b1 none")
	}
	apply(true, both[1:])
	if _, ok := table.Address("b1"); ok {
		t.Error("a broker that is not told any more has an address")
	}
	if a, ok := table.Address("b2"); a != "h2:1" || !ok {
		t.Errorf("the address is %q, %v", a, ok)
	}
	owner(1, "b2", 7, true)
	apply(false, both[1:], link.TableOwner{Partition: 9, Epoch: 1, Broker: "b1"}) // there is no such
}

func TestTable_OwnerIsThatOfThePartition(t *testing.T) {
	var table link.Table
	u := &link.TableUpdate{Partitions: 1024, Brokers: []link.TableBroker{one}}
	for i := range uint16(1024) {
		u.Owners = append(u.Owners, link.TableOwner{Partition: i, Epoch: uint64(i) + 1, Broker: fmt.Sprint("b", i%7)})
	}
	table.Apply(u)
	for name, want := range map[string]uint16{"a": 356, "sensor-1": 603} {
		if b, p, e, ok := table.Owner("acme", 0, name); p != want || b != fmt.Sprint("b", want%7) || e != uint64(want)+1 || !ok {
			t.Errorf("Owner(%s) = %s, %d, %d, %v", name, b, p, e, ok)
		}
	}
	if n := testing.AllocsPerRun(100, func() { table.Owner("acme", 0, "sensor-1") }); n > 0 {
		t.Errorf("Owner allocates %v times", n)
	}
}

// Readers see one state or the next, never a mixture.
func TestTable_ReadersAndAWriter(t *testing.T) {
	var table link.Table
	var wg sync.WaitGroup
	stop := make(chan struct{})
	tell := func(epoch uint64) {
		name := fmt.Sprint("b", epoch)
		table.Apply(&link.TableUpdate{
			Partitions: 2, Brokers: []link.TableBroker{{Name: name, Address: name}},
			Owners: []link.TableOwner{{Partition: 0, Epoch: epoch, Broker: name}, {Partition: 1, Epoch: epoch, Broker: name}},
		})
	}
	tell(1)
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if b, _, e, ok := table.Owner("acme", 0, "x"); b != fmt.Sprint("b", e) || !ok {
					t.Errorf("epoch %d is of %s", e, b)
					return
				}
			}
		})
	}
	for e := uint64(2); e < 2000; e++ {
		tell(e)
	}
	close(stop)
	wg.Wait()
}

// 1,024 partitions take about 12 KB, so that telling them all to every gateway is
// cheap.
func TestTable_IsSmall(t *testing.T) {
	u := &link.TableUpdate{Partitions: 1024}
	for i := range 30 {
		u.Brokers = append(u.Brokers, link.TableBroker{Name: fmt.Sprint("broker-", i), Address: fmt.Sprint("broker-", i, ".example:44054")})
	}
	for i := range uint16(1024) {
		u.Owners = append(u.Owners, link.TableOwner{Partition: i, Epoch: 1 << 33, Broker: u.Brokers[i%30].Name})
	}
	pieces, counts := encodeDown(&link.Down{Frames: []link.DownFrame{{Kind: link.DownTable, Table: u}}})
	if len(pieces) != 1 || len(pieces[0]) > 14<<10 {
		t.Errorf("%d pieces, the first of %d bytes", len(pieces), len(pieces[0]))
	}
	var got link.Down
	if err := link.DecodeDown(pieces[0], counts[0], &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(u, got.Frames[0].Table); diff != "" {
		t.Error(diff)
	}
}
