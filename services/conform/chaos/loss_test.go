// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/services/conform"
)

var (
	sleepers = flag.Int("sessions", 0, "offline sessions of TestLoss; 0 leaves it out")
	each     = flag.Int("messages", 100, "messages that wait for each of them")
)

// TestLoss loses a broker for good, with its disk, while sessions that are away
// have messages waiting: all are delivered from its followers' copies.
func TestLoss(t *testing.T) {
	if *sleepers == 0 {
		t.Skip("runs with as many sessions as -sessions says")
	}
	if err := conform.Build(folder); err != nil {
		t.Fatal(err)
	}
	r := New(t, folder, *spread, "--anonymous", "chaos", "--brokers", "3", "--gateways", "2", "--nats", "3", "--zones", "3")
	r.Settled(time.Minute)
	addrs := r.Addrs()
	device := func(i int, name string) *conform.Device {
		return &conform.Device{
			Address: addrs[i%len(addrs)], Timeout: 30 * time.Second,
			Options: packet.Connect{Version: packet.V5, ClientID: name + strconv.Itoa(i), SessionExpiry: 3600, HasSessionExpiry: true},
		}
	}
	begun := time.Now()
	parallel(t, *sleepers, func(i int) error {
		d := device(i, "sleeper-")
		if _, err := d.Connect(); err != nil {
			return err
		}
		defer d.Disconnect()
		codes, err := d.Subscribe(mqtt.Subscription{Filter: fmt.Sprintf("loss/%d", i), QoS: mqtt.AtLeastOnce})
		if err == nil && codes[0] != mqtt.ReasonCode(mqtt.AtLeastOnce) {
			err = codes[0]
		}
		return err
	})
	say("%d sessions subscribed in %.1f s", *sleepers, time.Since(begun).Seconds())
	begun = time.Now()
	const publishers = 8
	parallel(t, publishers, func(k int) error { return fill(device(k, "filler-"), k, publishers) })
	say("%d messages acknowledged in %.1f s", *sleepers**each, time.Since(begun).Seconds())
	r.Settled(time.Minute)

	victim := r.Of("broker")[0]
	states, err := victim.states(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	victim.Kill()
	victim.Wipe()
	first, last := r.failover(t, partitions-states["serving"])
	say("%s, with %d of %d partitions, is gone: the first of them is served again %.2f s after the kill, the last %.2f s", victim.Name,
		states["serving"], partitions, first.Sub(killed).Seconds(), last.Sub(killed).Seconds())
	if took := last.Sub(killed); took > 10*time.Second {
		t.Errorf("the last partition is served again after %v, more than 10 s", took)
	}

	begun = time.Now()
	var came atomic.Int64
	parallel(t, *sleepers, func(i int) error { return awake(device(i, "sleeper-"), &came) })
	say("%d messages came in %.1f s", came.Load(), time.Since(begun).Seconds())
	say("in sync again %.1f s after that", r.settledAt(t, 2).Seconds())
}

// fill publishes what is for every publishers-th session.
func fill(d *conform.Device, k, publishers int) error {
	if _, err := d.Connect(); err != nil {
		return err
	}
	defer d.Disconnect()
	var flying []*conform.Publication
	for n := range *each {
		for i := k; i < *sleepers; i += publishers {
			p, err := d.Publish(mqtt.Message{Topic: fmt.Appendf(nil, "loss/%d", i), Payload: strconv.AppendInt(nil, int64(n), 10), QoS: mqtt.AtLeastOnce})
			if err != nil {
				return err
			}
			if flying = append(flying, p); len(flying) < 50 {
				continue
			}
			if err := acknowledged(flying[0]); err != nil {
				return err
			}
			flying = flying[1:]
		}
	}
	for _, p := range flying {
		if err := acknowledged(p); err != nil {
			return err
		}
	}
	return nil
}

func acknowledged(p *conform.Publication) error {
	select {
	case <-p.Acked:
	case <-time.After(time.Minute):
		return conform.ErrTimeout
	}
	if p.Reason != mqtt.Success {
		return fmt.Errorf("PUBACK of %s: %w", p.Message.Topic, p.Reason)
	}
	return nil
}

// awake connects a session and waits for all of its messages, in order.
func awake(d *conform.Device, came *atomic.Int64) error {
	var mu sync.Mutex
	var got []int
	all := make(chan struct{})
	d.OnMessage = func(m conform.Delivered) {
		n, _ := strconv.Atoi(string(m.Payload))
		mu.Lock()
		defer mu.Unlock()
		if slices.Contains(got, n) {
			return
		}
		if got = append(got, n); len(got) == *each {
			close(all)
		}
	}
	ack, err := d.Connect()
	if err != nil {
		return err
	}
	defer d.Disconnect()
	if !ack.SessionPresent {
		return fmt.Errorf("%s: its session is gone", d.Options.ClientID)
	}
	select {
	case <-all:
	case <-d.Done():
		err = d.Err()
	case <-time.After(time.Minute):
	}
	mu.Lock()
	defer mu.Unlock()
	came.Add(int64(len(got)))
	if len(got) < *each || !slices.IsSorted(got) {
		return fmt.Errorf("%s: %d of %d messages came, in order: %v; %w", d.Options.ClientID, len(got), *each, slices.IsSorted(got), err)
	}
	return nil
}

// parallel calls f for 0 to n-1, 50 at a time, and reports at most ten errors.
func parallel(t *testing.T, n int, f func(int) error) {
	t.Helper()
	var next, failed atomic.Int64
	var wg sync.WaitGroup
	for range min(n, 50) {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				if err := f(int(i)); err != nil && failed.Add(1) <= 10 {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if failed.Load() > 0 {
		t.Fatalf("%d of %d failed", failed.Load(), n)
	}
}

// failover waits until all partitions are served, of which before are at first,
// and returns when the first of the others was and when the last.
func (r *Region) failover(t *testing.T, before int) (first, last time.Time) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := poll(ctx, func() error {
		serving := r.serving(ctx)
		if serving > before && first.IsZero() {
			first = time.Now()
		}
		if serving < partitions {
			return fmt.Errorf("%d of %d partitions are served", serving, partitions)
		}
		last = time.Now()
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return first, last
}

// serving counts what the brokers that answer serve.
func (r *Region) serving(ctx context.Context) (n int) {
	for _, b := range r.Of("broker") {
		if s, err := b.states(ctx); err == nil {
			n += s["serving"]
		}
	}
	return n
}

// settledAt waits until brokers that answer have all partitions in sync.
func (r *Region) settledAt(t *testing.T, brokers int) time.Duration {
	t.Helper()
	begun := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if err := poll(ctx, func() error {
		up, inSync := 0, 0
		for _, b := range r.Of("broker") {
			if s, err := b.states(ctx); err == nil {
				up++
				inSync += s["in_sync"]
			}
		}
		if up != brokers || inSync != partitions {
			return fmt.Errorf("%d brokers have %d of %d partitions in sync", up, inSync, partitions)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	return time.Since(begun)
}
