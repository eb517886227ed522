// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"encoding/json"
	"flag"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

var places = flag.Int("places", 2, "how often TestPlace has its tenant go to other partitions")

// A tenant goes to other partitions again and again while its clients talk, and they notice a
// pause: no connection is closed, nothing is lost, doubled or out of order, no will is sent.
func TestPlace(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a region of processes")
	}
	r := regionOf(t, false) // the command has to come from the broker's own machine
	r.Settled(time.Minute)
	c := NewCrowd(t, r.Addrs(), *connected, min(mostTalkers, *connected/4), *pace)
	defer c.end()
	parallel(t, *connected, c.join)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var talk sync.WaitGroup
	talk.Go(func() { c.talk(ctx) })
	time.Sleep(time.Second + 2**pace)
	c.reset()
	time.Sleep(2*time.Second + 2**pace)
	came, acked := c.pauses()
	say("%d clients, %d talk; before: messages late by %s; acknowledgements took %s", *connected, len(c.talkers), spreadOf(came), spreadOf(acked))
	busy := 4 * at99(acked) // what this machine needs while nothing happens

	var allCame, allAcked, took []int64
	operator := "http://" + r.Of("broker")[0].Addr("operator")
	for range *places {
		c.reset()
		begun := time.Now()
		out, err := exec.CommandContext(t.Context(), filepath.Join(folder, "manor"), "admin", "tenant", "place", "chaos",
			"--partitions", somePartitions(), "--operator", operator, "-o", "json").CombinedOutput()
		took = append(took, int64(time.Since(begun)))
		if err != nil {
			t.Fatalf("place: %v\n%s", err, out)
		}
		var placed struct {
			Table []struct{ Tenant, Moves string }
		}
		if err := json.Unmarshal(out, &placed); err != nil || len(placed.Table) != 1 || placed.Table[0].Tenant != "chaos" || placed.Table[0].Moves != "" {
			t.Errorf("the tenant has not arrived (%v): %s", err, out)
		}
		time.Sleep(time.Second + 2**pace)
		came, acked := c.pauses()
		allCame, allAcked = append(allCame, came...), append(allAcked, acked...)
	}
	n, how := c.noticed()
	say("%d moves of %s each: %d of %d clients noticed (%s), %d wills were sent", *places, spreadOf(took), n, *connected, how, c.wills.Load())
	say("for each talker and move, at most: messages late by %s; acknowledgements took %s", spreadOf(allCame), spreadOf(allAcked))
	stop()
	talk.Wait()
	say("all of %d acknowledged messages came once and in order: %v", c.settle(time.Minute), !t.Failed())
	if n > 0 || c.wills.Load() > 0 {
		t.Errorf("%d clients were closed (%s), %d wills were sent; expected none", n, how, c.wills.Load())
	}
	if p99 := at99(allAcked); p99 > noticeMost+busy {
		t.Errorf("the pause that 99 of 100 publishers notice is %v, more than %v and %v for a busy machine", p99, noticeMost, busy)
	}
}

// somePartitions is a list of one to eight partitions.
func somePartitions() string {
	var list []string
	for _, p := range rand.Perm(partitions)[:1+rand.IntN(8)] {
		list = append(list, strconv.Itoa(p))
	}
	return strings.Join(list, ",")
}
