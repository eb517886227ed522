// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// rig is a set of groups that run together.
type rig struct {
	o         *Options
	recording atomic.Bool
	stop      atomic.Bool
	subs      []*subscriber
	pubs      []*publisher
	groups    []*group
}

func (r *rig) group(fan, window int) *group {
	g := newGroup(fan, window, &r.recording)
	r.groups = append(r.groups, g)
	return g
}

func (r *rig) subscriber(i int, g *group, name string, filters ...string) error {
	c, err := r.o.open(i, name, !r.o.Persist, r.o.Buffer)
	if err != nil {
		return err
	}
	r.subs = append(r.subs, &subscriber{c: c, g: g})
	for k := 0; k < len(filters); k += 50 {
		if err := c.subscribe(uint16(k/50+1), byte(r.o.QoS), filters[k:min(k+50, len(filters))]...); err != nil {
			return fmt.Errorf("subscribe %s: %w", name, err)
		}
	}
	return nil
}

func (r *rig) publisher(i int, g *group, name string, topics ...string) error {
	c, err := r.o.open(i, name, true, 16<<10)
	if err != nil {
		return err
	}
	r.pubs = append(r.pubs, newPublisher(c, g, topics, byte(r.o.QoS), r.o.Size, r.o.Batch, r.o.Inflight))
	return nil
}

// close ends all connections.
func (r *rig) close() {
	for _, p := range r.pubs {
		_ = p.c.Close()
	}
	for _, s := range r.subs {
		_ = s.c.Close()
	}
}

func (r *rig) delivered() (n int64) {
	for _, s := range r.subs {
		n += s.n.Load()
	}
	return n
}

// run warms up, measures, and waits for its goroutines.
func (r *rig) run(res *Result) error {
	if r.o.Settle {
		settle(descendants(r.o.PIDs))
	}
	var senders, readers sync.WaitGroup
	for _, s := range r.subs {
		readers.Go(s.loop)
	}
	for i, p := range r.pubs {
		readers.Go(p.acks)
		senders.Go(func() {
			if r.o.Rate > 0 {
				p.paced(r.o.Rate/float64(len(r.pubs)), float64(i)/float64(len(r.pubs)), &r.stop)
			} else {
				p.saturate(&r.stop)
			}
		})
	}
	time.Sleep(r.o.Warm)
	r.measure(res)
	err := r.o.pauses.report(res)
	r.stop.Store(true)
	for _, g := range r.groups {
		g.poke()
		res.Lost += g.lost.Load()
	}
	if r.o.Rate > 0 { // open loop: what was refused is missing too
		res.Lost = r.missing()
	}
	r.close()
	senders.Wait()
	readers.Wait()
	var h histogram
	for _, s := range r.subs {
		h.merge(&s.latency)
	}
	for _, g := range r.groups {
		res.Extra["fan"] = float64(g.fan)
		res.Extra["sent"] += float64(g.sent.Load())
		res.Extra["received"] += float64(g.received.Load())
	}
	res.P50, res.P99 = float64(h.quantile(.5))/1e3, float64(h.quantile(.99))/1e3
	return err
}

// missing is what was sent and does not come any more: nothing has for as long
// as a stall takes.
func (r *rig) missing() (n int64) {
	for before, last := int64(-1), time.Now(); ; time.Sleep(50 * time.Millisecond) {
		n = 0
		for _, g := range r.groups {
			n += max(0, g.sent.Load()*g.fan-g.received.Load())
		}
		if n != before {
			before, last = n, time.Now()
		}
		if time.Since(last) > stall || n == 0 && time.Since(last) > stall/8 {
			return n
		}
	}
}

// measure fills res over the measured time.
func (r *rig) measure(res *Result) {
	pids := descendants(r.o.PIDs)
	r.recording.Store(true)
	defer r.recording.Store(false)
	before, n, start, own := sample(pids), r.delivered(), time.Now(), ownCPU()
	peak := before.rss
	for time.Since(start) < r.o.Duration {
		time.Sleep(100 * time.Millisecond)
		peak = max(peak, sample(pids).rss)
	}
	after, took := sample(pids), time.Since(start)
	n = r.delivered() - n
	res.Delivered, res.Rate = n, float64(n)/took.Seconds()
	if n > 0 {
		res.CPU = micros(after.cpu-before.cpu) / float64(n)
		res.GeneratorCPU = micros(ownCPU()-own) / float64(n)
	}
	res.PeakRSS = float64(peak) / (1 << 20)
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
