// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/services/conform"
)

// Crowd are clients that stay connected, of which some talk: it tells who notices what
// happens to a region. In turn they speak MQTT 3.1.1 and 5, and are clean and
// persistent; each has a will.
type Crowd struct {
	t       testing.TB
	devices []*conform.Device
	talkers []*talker
	watcher *conform.Device
	wills   atomic.Int64
	ending  atomic.Bool
	closed  sync.Map // by how: *atomic.Int64
}

// talker is a client of a Crowd that publishes numbers at QoS 1, or 2, to another one.
type talker struct {
	device *conform.Device
	topic  string
	qos    mqtt.QoS
	heard  *account
	last   atomic.Int64 // when a number came, in ns
	// pause is by how much the longest time between two numbers was longer than pace,
	// waited the longest time for an acknowledgement, in ns, since they were asked for.
	pace          time.Duration
	pause, waited atomic.Int64
	promises      []promise // of run, until it has ended
	faults        atomic.Int64
}

// longest raises most to d.
func longest(most *atomic.Int64, d int64) {
	for was := most.Load(); d > was && !most.CompareAndSwap(was, d); was = most.Load() {
	}
}

// NewCrowd connects clients through addrs in turn, of which talk publish a number each
// pace.
func NewCrowd(t testing.TB, addrs []string, clients, talk int, pace time.Duration) *Crowd {
	c := &Crowd{t: t}
	id := strconv.FormatInt(time.Now().UnixNano()%1e9, 36)
	for i := range clients {
		o := packet.Connect{Version: packet.V311, ClientID: fmt.Sprintf("crowd-%s-%d", id, i), KeepAlive: 60, CleanStart: i/2%2 == 0}
		if i%2 == 1 {
			o.Version, o.SessionExpiry, o.HasSessionExpiry = packet.V5, 3600, i/2%2 == 1
			if o.CleanStart {
				o.SessionExpiry = 0
			}
		}
		o.Will = &mqtt.Will{Message: mqtt.Message{Topic: fmt.Appendf(nil, "crowd-%s/will/%d", id, i), Payload: []byte("gone")}}
		c.devices = append(c.devices, &conform.Device{Address: addrs[i%len(addrs)], Options: o, Timeout: 30 * time.Second})
	}
	for i := range talk {
		x := &talker{device: c.devices[i], topic: fmt.Sprintf("crowd-%s/talk/%d", id, i), qos: mqtt.QoS(1 + i/4%2), pace: pace, heard: &account{highest: -1}}
		c.talkers = append(c.talkers, x)
		c.devices[len(c.devices)-1-i].OnMessage = x.message
	}
	c.watcher = &conform.Device{
		Address: addrs[0], Timeout: 30 * time.Second, Options: packet.Connect{Version: packet.V5, ClientID: "watcher-" + id, CleanStart: true},
		OnMessage: func(conform.Delivered) {
			if !c.ending.Load() {
				c.wills.Add(1)
			}
		},
	}
	if _, err := c.watcher.Connect(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.watcher.Subscribe(mqtt.Subscription{Filter: "crowd-" + id + "/will/#"}); err != nil {
		t.Fatal(err)
	}
	return c
}

// message takes note of a number that came.
func (x *talker) message(d conform.Delivered) {
	now := time.Now().UnixNano()
	if was := x.last.Swap(now); was != 0 {
		longest(&x.pause, now-was-int64(x.pace))
	}
	n, err := strconv.Atoi(string(d.Payload))
	if err != nil || x.heard.came(n, mqtt.ExactlyOnce) != "" { // at QoS 1 too: nobody connects again
		x.faults.Add(1)
	}
}

// enter connects a client, which comes again while gateways let in as many as they can
// (0x9F, in 3.x server unavailable).
func enter(d *conform.Device) error {
	for tries := 0; ; tries++ {
		_, err := d.Connect()
		var refused *conform.Refused
		if err == nil || tries == 600 || !errors.As(err, &refused) {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// join connects client i, and has it listen to its talker.
func (c *Crowd) join(i int) error {
	d := c.devices[i]
	if err := enter(d); err != nil {
		return err
	}
	go func() {
		<-d.Done()
		if c.ending.Load() {
			return
		}
		how := "without a word"
		if end := d.Disconnected(); end != nil {
			how = end.Reason.String()
		}
		n, _ := c.closed.LoadOrStore(fmt.Sprintf("MQTT %s, %s", d.Options.Version, how), new(atomic.Int64))
		n.(*atomic.Int64).Add(1)
	}()
	k := len(c.devices) - 1 - i
	if k >= len(c.talkers) {
		return nil
	}
	_, err := d.Subscribe(mqtt.Subscription{Filter: c.talkers[k].topic, QoS: mqtt.ExactlyOnce})
	return err
}

// talk has the talkers publish until ctx is done, and then waits for what is not
// acknowledged.
func (c *Crowd) talk(ctx context.Context) {
	var all sync.WaitGroup
	for i, x := range c.talkers {
		all.Go(func() {
			// They do not talk all at once.
			select {
			case <-ctx.Done():
				return
			case <-time.After(x.pace * time.Duration(i) / time.Duration(len(c.talkers))):
			}
			tick := time.NewTicker(x.pace)
			defer tick.Stop()
			for n := 0; ; n++ {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				if err := x.one(n); err != nil {
					return // its connection has ended, which is told
				}
			}
		})
	}
	all.Wait()
}

// one publishes a number and waits for its acknowledgement.
func (x *talker) one(n int) error {
	sent := time.Now()
	p, err := x.device.Publish(mqtt.Message{Topic: []byte(x.topic), Payload: strconv.AppendInt(nil, int64(n), 10), QoS: x.qos})
	if err != nil {
		return err
	}
	select {
	case <-p.Acked:
	case <-x.device.Done():
		return x.device.Err()
	}
	longest(&x.waited, int64(time.Since(sent)))
	if !p.Reason.Failed() {
		x.promises = append(x.promises, promise{number: n, sent: sent, at: time.Now()})
	}
	return nil
}

// reset forgets the longest pauses.
func (c *Crowd) reset() {
	for _, x := range c.talkers {
		x.pause.Store(0)
		x.waited.Store(0)
	}
}

// noticed is how many connections were closed, and how.
func (c *Crowd) noticed() (n int64, how string) {
	var all []string
	c.closed.Range(func(k, v any) bool {
		n += v.(*atomic.Int64).Load()
		all = append(all, fmt.Sprintf("%d %s", v.(*atomic.Int64).Load(), k))
		return true
	})
	slices.Sort(all)
	return n, strings.Join(all, "; ")
}

// spreadOf says what is usual and what is longest.
func spreadOf(all []int64) string {
	if len(all) == 0 {
		return "none"
	}
	slices.Sort(all)
	at := func(p int) time.Duration {
		return time.Duration(all[min(len(all)-1, len(all)*p/100)]).Round(time.Millisecond)
	}
	return fmt.Sprintf("p50 %v, p99 %v, longest %v", at(50), at(99), at(100))
}

// pauses are the longest of each talker: between two numbers that came, and for an
// acknowledgement.
func (c *Crowd) pauses() (came, acked []int64) {
	for _, x := range c.talkers {
		came, acked = append(came, x.pause.Load()), append(acked, x.waited.Load())
	}
	return came, acked
}

// settle holds that all that was acknowledged comes, once and in order. talk has ended.
func (c *Crowd) settle(limit time.Duration) (promises int) {
	ctx, cancel := context.WithTimeout(c.t.Context(), limit)
	defer cancel()
	for _, x := range c.talkers {
		promises += len(x.promises)
		err := poll(ctx, func() error {
			if m := x.heard.missing(x.promises); len(m) > 0 {
				return fmt.Errorf("%s (QoS %d) lacks %d of %d:%s", x.topic, x.qos, len(m), len(x.promises), brief(m))
			}
			return nil
		})
		if err != nil {
			c.t.Error(err)
		}
		if n := x.faults.Load(); n > 0 {
			c.t.Errorf("%d messages of %s (QoS %d) came twice, out of order or are no numbers", n, x.topic, x.qos)
		}
	}
	return promises
}

// end closes all.
func (c *Crowd) end() {
	c.ending.Store(true)
	for _, d := range c.devices {
		d.Kill()
	}
	c.watcher.Kill()
}
