// SPDX-License-Identifier: Apache-2.0

package conform

import (
	"encoding/binary"
	"flag"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
)

var (
	slowMessages = flag.Int("slow-messages", 100_000, "messages to a subscriber that does not read")
	slowTime     = flag.Duration("slow-time", 5*time.Second, "the least time for which it does not read")
)

// slowMemory is by how much all processes together may grow while a subscriber
// does not read: LevelDB's write buffers (2 x 32 MiB and as much again while it
// compacts), 1 MiB for the session, 512 KiB for its connection, and what the
// collector lets lie (docs/guarantees.md).
const slowMemory = 256 << 20

// TestSlowSubscriber: who does not read costs a bounded amount of memory, does
// not slow others, and has its QoS 1 messages when it reads again; one with a
// smaller queue loses exactly the rest, and each is counted.
func TestSlowSubscriber_OneProcess(t *testing.T) {
	slowSubscriber(t, "--data", t.TempDir(), "--listen-offset", Offset(t))
}

func TestSlowSubscriber_Processes(t *testing.T) {
	slowSubscriber(t, "--data", t.TempDir(), "--listen-offset", Offset(t), "--brokers", "1", "--gateways", "2")
}

func slowSubscriber(t *testing.T, args ...string) {
	if testing.Short() {
		t.Skip("moves hundreds of megabytes; not in short runs")
	}
	p := Start(t, Programs(t, built), args...)
	large, small := slowSignUp(t, p, "large"), slowSignUp(t, p, "small")
	request(t, http.MethodPut, p.API+"/v1/tenants/small/quotas/overrides", small.Key,
		strings.NewReader(`{"queue_messages":1000}`), http.StatusOK, nil)
	untilQuota(t, p, small, "queue_messages", 1000)

	before := p.rss(t)
	quiet := beside(t, large)
	slow, kept := stalled(t, large)
	limited, some := stalled(t, small)
	stop := make(chan struct{})
	var busy time.Duration
	var peak int64
	var wg sync.WaitGroup
	wg.Go(func() { busy = roundTrips(t, large, time.Hour, stop) })
	wg.Go(func() {
		for {
			peak = max(peak, p.rss(t))
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
	start := time.Now()
	var publishing sync.WaitGroup
	publishing.Go(func() { flood(t, large, *slowMessages) })
	publishing.Go(func() { flood(t, small, *slowMessages/10) })
	publishing.Wait()
	time.Sleep(*slowTime - time.Since(start)) // the time is what is tested
	close(stop)
	wg.Wait()
	t.Logf("memory grew by %d MiB; p99 of others %v, %v beside one that reads", (peak-before)>>20, busy, quiet)
	if peak-before > slowMemory {
		t.Errorf("memory grew by %d MiB, the bound is %d", (peak-before)>>20, int64(slowMemory)>>20)
	}
	// Timings on a shared machine are noise below this floor.
	if floor := 10 * time.Millisecond; busy > max(2*quiet, floor) {
		t.Errorf("p99 of other clients is %v beside a slow subscriber, %v beside one that reads", busy, quiet)
	}

	slow.Resume()
	limited.Resume()
	waitFor(t, "all messages", func() bool { return int(kept.Load()) >= *slowMessages })
	if n := int(kept.Load()); n != *slowMessages {
		t.Errorf("%d messages came, %d were published", n, *slowMessages)
	}
	var dropped int
	waitFor(t, "the rest of the small queue", func() bool {
		dropped = clientDropped(t, p, small, "slow")
		return int(some.Load())+dropped >= *slowMessages/10
	})
	t.Logf("small queue: %d came, %d dropped and counted", some.Load(), dropped)
	if n := int(some.Load()) + dropped; n != *slowMessages/10 || dropped == 0 {
		t.Errorf("%d came and %d were counted as dropped, of %d", some.Load(), dropped, *slowMessages/10)
	}
}

// beside is the 99th percentile of round trips while the same flood goes to a
// subscriber that reads.
func beside(t *testing.T, a *slowTenant) (p99 time.Duration) {
	t.Helper()
	d := a.device(0, "fast")
	if _, err := d.Connect(); err != nil {
		t.Fatal(err)
	}
	defer d.Disconnect()
	if _, err := d.Subscribe(mqtt.Subscription{Filter: "flood", QoS: 1}); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { p99 = roundTrips(t, a, time.Hour, stop) })
	flood(t, a, *slowMessages/4)
	close(stop)
	wg.Wait()
	return p99
}

// slowTenant is a tenant with the addresses of all gateways.
type slowTenant struct {
	*account
	addrs []string
}

func slowSignUp(t *testing.T, p *Product, id string) *slowTenant {
	t.Helper()
	a := &slowTenant{account: signUp(t, p, id)}
	for _, g := range p.Of("gateway") {
		a.addrs = append(a.addrs, g.Addr("mqtt"))
	}
	return a
}

func (a *slowTenant) device(i int, name string) *Device {
	return &Device{Address: a.addrs[i%len(a.addrs)], Timeout: time.Minute, Options: packet.Connect{
		Version: packet.V5, ClientID: name, CleanStart: true, KeepAlive: 0,
		Username: a.UserPlain, HasUsername: true, Password: []byte(a.Password), HasPassword: true,
	}}
}

// stalled is a subscriber that has stopped reading, and the count of what comes
// to it. It checks the order.
func stalled(t *testing.T, a *slowTenant) (*Device, *atomic.Int64) {
	t.Helper()
	d := a.device(0, "slow")
	d.Options.SessionExpiry, d.Options.HasSessionExpiry = 3600, true
	var n atomic.Int64
	next := uint64(0)
	d.OnMessage = func(m Delivered) {
		if k := binary.BigEndian.Uint64(m.Payload); k < next {
			t.Errorf("%s: message %d came after %d", a.ID, k, next)
		} else {
			next = k + 1
		}
		n.Add(1)
	}
	if _, err := d.Connect(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Subscribe(mqtt.Subscription{Filter: "flood", QoS: 1}); err != nil {
		t.Fatal(err)
	}
	d.Pause()
	return d, &n
}

// flood publishes n numbered messages of 2 KiB at QoS 1 and waits for every
// acknowledgement.
func flood(t *testing.T, a *slowTenant, n int) {
	d := a.device(1, "flood")
	if _, err := d.Connect(); err != nil {
		t.Error(err)
		return
	}
	defer d.Disconnect()
	var under []*Publication
	for i := range n {
		payload := make([]byte, 2<<10)
		binary.BigEndian.PutUint64(payload, uint64(i))
		p, err := d.Publish(mqtt.Message{Topic: []byte("flood"), Payload: payload, QoS: 1})
		if err != nil {
			t.Error(err)
			return
		}
		if under = append(under, p); len(under) == 100 || i == n-1 {
			for _, p := range under {
				select {
				case <-p.Acked:
				case <-time.After(time.Minute):
					t.Errorf("%s: publish %d is not acknowledged", a.ID, i)
					return
				}
				if p.Reason.Failed() {
					t.Errorf("%s: publish refused: %s", a.ID, p.Reason)
				}
			}
			under = under[:0]
		}
	}
}

// roundTrips sends messages to itself and returns their 99th percentile.
func roundTrips(t *testing.T, a *slowTenant, d time.Duration, stop <-chan struct{}) time.Duration {
	c := a.device(1, fmt.Sprint("pong", d))
	got := make(chan struct{}, 1)
	c.OnMessage = func(Delivered) { got <- struct{}{} }
	if _, err := c.Connect(); err != nil {
		t.Error(err)
		return 0
	}
	defer c.Disconnect()
	topic := fmt.Sprint("pong/", d)
	if _, err := c.Subscribe(mqtt.Subscription{Filter: topic}); err != nil {
		t.Error(err)
		return 0
	}
	var all []time.Duration
	for end := time.Now().Add(d); time.Now().Before(end); {
		start := time.Now()
		if _, err := c.Publish(mqtt.Message{Topic: []byte(topic)}); err != nil {
			t.Error(err)
			return 0
		}
		select {
		case <-got:
		case <-time.After(30 * time.Second):
			t.Error("a message to a client that reads does not come")
			return 0
		}
		all = append(all, time.Since(start))
		select {
		case <-stop:
			end = time.Now()
		case <-time.After(2 * time.Millisecond):
		}
	}
	slices.Sort(all)
	return all[len(all)*99/100]
}

func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not after 2 minutes", what)
		}
	}
}

func clientDropped(t *testing.T, p *Product, a *slowTenant, id string) int {
	t.Helper()
	var c struct {
		Dropped int `json:"dropped"`
	}
	Get(t, p.API+"/v1/tenants/"+a.ID+"/clients/"+id, a.Key, &c)
	return c.Dropped
}

func untilQuota(t *testing.T, p *Product, a *slowTenant, name string, want int64) {
	t.Helper()
	waitFor(t, "the override of "+name, func() bool {
		var q struct {
			Items []struct {
				Name  string `json:"name"`
				Limit *int64 `json:"limit"`
			} `json:"items"`
		}
		Get(t, p.API+"/v1/tenants/"+a.ID+"/quotas", a.Key, &q)
		for _, i := range q.Items {
			if i.Name == name {
				return i.Limit != nil && *i.Limit == want
			}
		}
		return false
	})
	time.Sleep(2 * time.Second) // "live everywhere in 2 s" is the promise
}
