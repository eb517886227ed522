// SPDX-License-Identifier: Apache-2.0

package host_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/manormq/manor/services/broker/partition"
)

// Three brokers with real stores, links and bus lose nothing that was acknowledged
// when one of them dies, comes back, and comes back without its disk.
func TestHost_Cluster(t *testing.T) {
	if testing.Short() {
		t.Skip("half a minute")
	}
	c := newBrokers(t, 3)
	for _, b := range c.all {
		b.start()
	}
	c.eventually("served and in sync", 20*time.Second, c.settled)
	stop := c.load()
	c.more("20 appends each", 20)
	stop()
	c.verify("at first")

	// One is killed under load.
	stop = c.load()
	c.more("more appends", 20)
	victim := c.all[1]
	var owned []partition.ID
	for p := range partition.ID(partitions) {
		if c.owner(p) == victim {
			owned = append(owned, p)
		}
	}
	if len(owned) == 0 {
		t.Fatalf("%s owns nothing", victim.name)
	}
	victim.stop()
	first := c.eventually(fmt.Sprintf("the first of %d partitions served again", len(owned)), 15*time.Second, func() string {
		for _, p := range owned {
			if c.owner(p) != nil {
				return ""
			}
		}
		return "none is"
	})
	last := c.eventually("the last of them served again", 15*time.Second, func() string {
		for _, p := range owned {
			if c.owner(p) == nil {
				return fmt.Sprintf("partition %d is not", p)
			}
		}
		return ""
	})
	if first+last > 10*time.Second {
		t.Errorf("the last partition was served again after %v, expected 10 s at most", first+last)
	}
	c.more("appends go on", 20)
	stop()
	c.verify("after the failover")

	// It comes back with its folder.
	stop = c.load()
	victim.start()
	c.eventually("in sync again with the old folder", 20*time.Second, c.settled)
	c.more("appends with it", 20)
	stop()
	c.verify("after its return")

	// Another loses its disk, and is back before anybody took its place.
	stop = c.load()
	victim = c.all[2]
	sent := snapshots(c.all[:2])
	victim.stop()
	if err := os.RemoveAll(victim.dir); err != nil {
		t.Fatal(err)
	}
	victim.start()
	c.eventually("filled by snapshots and in sync again", 20*time.Second, func() string {
		if snapshots(c.all[:2]) == sent {
			return "no snapshot was sent to a broker with an empty folder"
		}
		return c.settled()
	})
	c.more("appends with that", 20)
	stop()
	c.verify("after the loss of a disk")
	for _, b := range c.all {
		t.Logf("%s: %+v", b.name, b.host.Stats())
		if b.host.Stats().Alarms > 0 {
			t.Errorf("%s gave an alarm", b.name)
		}
	}
}

func snapshots(of []*broker) (n uint64) {
	for _, b := range of {
		n += b.host.Stats().Snapshots
	}
	return n
}
