// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/manormq/manor/services/conform"
)

var (
	minutes   = flag.Float64("minutes", 0, "how long TestChaos goes on; 0 leaves it out")
	only      = flag.String("only", "", "an expression for names of faults: TestChaos does nothing else")
	spread    = flag.Bool("spread", true, "each process in a network namespace of its own, where that is allowed")
	offset    = flag.String("listen-offset", "", "--listen-offset of manor dev; empty takes one whose ports seem free")
	withoutIt = flag.Duration("nats-gone", time.Minute, "how long TestChaos takes NATS away")
)

var folder = filepath.Join(os.TempDir(), fmt.Sprintf("manor-chaos-%d", os.Getpid()))

func TestMain(m *testing.M) {
	code := m.Run()
	_ = os.RemoveAll(folder)
	os.Exit(code)
}

// region is 3 brokers, each in a zone, 2 gateways and 3 NATS servers.
func region(t *testing.T) *Region { return regionOf(t, *spread) }

func regionOf(t *testing.T, spread bool) *Region {
	t.Helper()
	if err := conform.Build(folder); err != nil {
		t.Fatal(err)
	}
	return New(t, folder, Layout{Spread: spread, Offset: *offset},
		"--anonymous", "chaos", "--brokers", "3", "--gateways", "2", "--nats", "3", "--zones", "3")
}

// TestChaos does one damage after the other, in random order, under load. After
// each it waits until every client is back and every partition in sync, and holds
// the account.
func TestChaos(t *testing.T) {
	if *minutes == 0 {
		t.Skip("takes as many minutes as -minutes says")
	}
	end := time.Now().Add(time.Duration(*minutes * float64(time.Minute)))
	r := region(t)
	t.Logf("settled after %v", r.Settled(time.Minute).Round(time.Millisecond))
	l := NewLoad(t, r.Addrs(), Size{Publishers: 6, Subscribers: 12, Rate: 30})
	l.Back(30 * time.Second)
	w := &world{Region: r, load: l, rate: 6 * 30}
	var bag []fault
	for n := 1; time.Now().Before(end) && !t.Failed(); n++ {
		if len(bag) == 0 {
			bag = w.faults()
			rand.Shuffle(len(bag), func(i, j int) { bag[i], bag[j] = bag[j], bag[i] })
		}
		f := bag[0]
		bag = bag[1:]
		begun := time.Now()
		l.Longest()
		say("%d: %s", n, f.name)
		f.do()
		healed := time.Now()
		back := l.Back(time.Minute)
		settled := r.Settled(2 * time.Minute)
		waited := l.Longest()
		if f.most > 0 && waited > f.most {
			t.Errorf("%s: a publisher waited %v for an acknowledgement, longer than %v", f.name, waited, f.most)
		}
		promises, took := l.Settle(2 * time.Minute)
		say("%d: %s: %.1f s; a publisher waited %.1f s at most; clients back %.1f s and in sync %.1f s after its end, all of %d acknowledged delivered in %.1f s",
			n, f.name, healed.Sub(begun).Seconds(), waited.Seconds(), back.Seconds(), (back + settled).Seconds(), promises, took.Seconds())
	}
	say("%d publishes were acknowledged, %d messages came, %d connections were lost", l.Acked(), l.Received(), l.Lost())
}

func say(format string, args ...any) {
	fmt.Printf("%s %s\n", time.Now().Format("15:04:05.000"), fmt.Sprintf(format, args...))
}
