// SPDX-License-Identifier: Apache-2.0

package main

import (
	"flag"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/services/conform"
	"github.com/manormq/manor/services/conform/chaos"
	"github.com/manormq/manor/tenancy"
)

var growing = flag.Bool("grow", false, "change a plan in a region of processes, in TestGrow")

// talker publishes numbers, and listens to what it publishes.
type talker struct {
	*conform.Device
	topic string

	mu    sync.Mutex
	heard []string // guarded by mu
}

// TestGrow changes a tenant's plan by the API of a region of processes while its clients
// talk, and kills the process that was asked: the cell grows to what the plan has, nobody's
// connection ends, and all that was acknowledged comes once and in order.
func TestGrow(t *testing.T) {
	if !*growing {
		t.Skip("starts a region of processes; see -grow")
	}
	dir := t.TempDir()
	if err := conform.Build(dir); err != nil {
		t.Fatal(err)
	}
	r := &replicas{t: t, Region: chaos.New(t, dir, chaos.Layout{Offset: *offset}, "--brokers", "3", "--gateways", "2", "--nats", "1", "--tenancies", "2")}
	r.Settled(time.Minute)
	r.signUp(tenancy.PlanFree)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	all := make([]*talker, 12)
	said := make([][]string, len(all))
	for i := range all {
		all[i] = r.talker(i)
	}
	for i, x := range all {
		wg.Go(func() { said[i] = x.talk(t, stop) })
	}
	time.Sleep(time.Second) // some traffic before
	begun := time.Now()
	if now, err := r.clients[0].ReplacePlan(t.Context(), r.tenant, tenancy.PlanStarter); err != nil || now.Plan != tenancy.PlanStarter || now.Cell == nil || now.Cell.Wanted != 4 {
		t.Errorf("the plan: %+v, %v", now, err)
	}
	r.Of("tenancy")[0].Kill()
	for {
		now, err := r.clients[1].Tenant(t.Context(), r.tenant)
		if err == nil && now.Cell != nil && now.Cell.Has == 4 && now.Cell.Waits == "" {
			break
		}
		if time.Since(begun) > time.Minute {
			t.Errorf("it does not grow: %+v, %v", now, err)
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	took := time.Since(begun)
	time.Sleep(time.Second) // and after
	close(stop)
	wg.Wait()
	n := 0
	for i, x := range all {
		if err := x.Err(); err != nil {
			t.Errorf("%s was closed: %v", x.topic, err)
		}
		n += len(said[i])
		x.expect(t, said[i])
	}
	fmt.Printf("the cell has grown within %v, and %d acknowledged messages have come: %v\n", took.Round(time.Millisecond), n, !t.Failed())
}

// talker connects one, to one gateway or the other.
func (r *replicas) talker(i int) *talker {
	r.t.Helper()
	addrs := r.Addrs()
	id := fmt.Sprint("talker-", i)
	x := &talker{topic: "talk/" + id}
	x.Device = &conform.Device{
		Address: addrs[i%len(addrs)],
		Options: packet.Connect{
			Version: packet.V5, CleanStart: true, ClientID: id, SessionExpiry: 3600, HasSessionExpiry: true,
			HasUsername: true, Username: r.tenant + ":" + r.first.Username, HasPassword: true, Password: []byte(r.first.Password),
		},
		OnMessage: func(d conform.Delivered) {
			x.mu.Lock()
			defer x.mu.Unlock()
			x.heard = append(x.heard, string(d.Payload))
		},
	}
	for tries := 0; ; tries++ {
		if _, err := x.Connect(); err == nil {
			break
		} else if tries == 100 {
			r.t.Fatal(err)
		}
		time.Sleep(250 * time.Millisecond) // the plan's connect_rate
	}
	if _, err := x.Subscribe(mqtt.Subscription{Filter: x.topic, QoS: mqtt.ExactlyOnce}); err != nil {
		r.t.Fatal(err)
	}
	return x
}

// talk publishes until stop is closed, and returns what was acknowledged.
func (x *talker) talk(t *testing.T, stop <-chan struct{}) (said []string) {
	for n := 0; ; n++ {
		select {
		case <-stop:
			return said
		case <-time.After(200 * time.Millisecond):
		}
		text := fmt.Sprint(n)
		p, err := x.Publish(mqtt.Message{Topic: []byte(x.topic), Payload: []byte(text), QoS: mqtt.QoS(1 + n%2)})
		if err != nil {
			t.Errorf("%s: %v", x.topic, err)
			return said
		}
		select {
		case <-p.Acked:
			if !p.Reason.Failed() {
				said = append(said, text)
			}
		case <-x.Done():
			return said
		}
	}
}

// expect waits until all that was acknowledged has come, once and in order.
func (x *talker) expect(t *testing.T, said []string) {
	t.Helper()
	why := ""
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		x.mu.Lock()
		why = ""
		if fmt.Sprint(x.heard) != fmt.Sprint(said) {
			why = fmt.Sprintf("%s heard %q, said %q", x.topic, x.heard, said)
		}
		x.mu.Unlock()
		if why == "" {
			return
		}
	}
	t.Error(why)
}
