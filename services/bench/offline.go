// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// absent are n persistent sessions whose clients are away.
type absent struct {
	o  *Options
	px string
}

func (a absent) topic(i int) string { return fmt.Sprintf("%s/q/%d", a.px, i) }
func (a absent) name(i int) string  { return fmt.Sprintf("%sq%d", a.px, i) }

// offline: n persistent sessions go away, get Msgs messages each, come back and
// drain them.
func offline(o *Options, res *Result) error {
	if o.QoS == 0 {
		o.QoS = 1
	}
	a := absent{o, prefix()}
	err := each(o.Conc, o.N, func(i int) error {
		c, err := o.open(i, a.name(i), false, 512)
		if err != nil {
			return err
		}
		defer c.leave()
		return c.subscribe(1, byte(o.QoS), a.topic(i))
	})
	if err != nil {
		return err
	}
	if err := a.enqueue(res); err != nil {
		return err
	}
	if err := a.drain(res); err != nil {
		return err
	}
	return each(o.Conc, o.N, func(i int) error { // leave nothing behind
		c, err := o.open(i, a.name(i), true, 512)
		if err == nil {
			c.leave()
		}
		return err
	})
}

// enqueue publishes to every session from four publishers.
func (a absent) enqueue(res *Result) error {
	const publishers = 4
	pids := descendants(a.o.PIDs)
	before, start := settle(pids), time.Now()
	var recording atomic.Bool
	var pubs []*publisher
	var wg sync.WaitGroup
	for p := range min(publishers, a.o.N) {
		var topics []string
		for i := p; i < a.o.N; i += publishers {
			topics = append(topics, a.topic(i))
		}
		c, err := a.o.open(p, fmt.Sprintf("%sqp%d", a.px, p), true, 16<<10)
		if err != nil {
			return err
		}
		pub := newPublisher(c, newGroup(1, 1<<40, &recording), topics, byte(a.o.QoS), a.o.Size, len(topics), a.o.Inflight)
		pubs = append(pubs, pub)
		wg.Go(pub.acks)
		wg.Go(func() { pub.rounds(int64(len(topics) * a.o.Msgs)) })
	}
	wg.Wait()
	took := time.Since(start)
	after := settle(pids) // what the store still does for these messages belongs to them
	var acked float64
	for _, p := range pubs {
		acked += float64(p.acked.Load())
	}
	res.Extra["acked"] = acked
	res.Extra["enqueue_per_s"] = acked / took.Seconds()
	res.Extra["enqueue_cpu_us"] = micros(after.cpu-before.cpu) / max(1, acked)
	res.Extra["queued_rss_mb"] = float64(after.rss) / (1 << 20)
	return nil
}

// rounds publishes want messages over its topics in turn, waits for their
// acknowledgements, and leaves. It gives up after a minute.
func (p *publisher) rounds(want int64) {
	defer p.c.leave()
	pos := 0
	deadline := time.Now().Add(time.Minute)
	for sent := int64(0); (sent < want || p.acked.Load() < want) && time.Now().Before(deadline); {
		room := min(p.limit-p.inflight.Load(), want-sent)
		if room <= 0 {
			select {
			case <-p.wake:
			case <-time.After(time.Second):
			}
			continue
		}
		n := min(int(room), len(p.ends)-pos, 50)
		if p.send(p.g.now(), 0, pos, pos+n) != nil {
			return
		}
		sent += int64(n)
		pos = (pos + n) % len(p.ends)
	}
}

// drain has every client come back and take its messages.
func (a absent) drain(res *Result) error {
	pids := descendants(a.o.PIDs)
	before, start := sample(pids), time.Now()
	var got atomic.Int64
	err := each(a.o.Conc, a.o.N, func(i int) error {
		c, err := a.o.open(i, a.name(i), false, 16<<10)
		if err != nil {
			return err
		}
		defer c.leave()
		_ = c.SetReadDeadline(time.Now().Add(15 * time.Second))
		return c.take(a.o.Msgs, &got)
	})
	took := time.Since(start)
	after := settle(pids)
	n := float64(got.Load())
	res.Delivered, res.Lost = got.Load(), int64(a.o.N*a.o.Msgs)-got.Load()
	res.Extra["drain_per_s"] = n / took.Seconds()
	res.Extra["drain_cpu_us"] = micros(after.cpu-before.cpu) / max(1, n)
	return err
}

// take acknowledges want publishes, and counts them; those that do not come are
// not counted.
func (c *client) take(want int, got *atomic.Int64) error {
	var out []byte
	releases := 0 // of QoS 2, still to come
	for n := 0; ; {
		out = out[:0]
		for {
			f, b, ok, err := c.packet()
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			switch f & kindMask {
			case pktPublish:
				n++
				got.Add(1)
				switch qos, id, _ := c.publish(f, b); qos {
				case 1:
					out = appendAck(out, pktPuback, id)
				case 2:
					releases++
					out = appendAck(out, pktPubrec, id)
				}
			case pktPubrel & kindMask:
				releases--
				out = appendAck(out, pktPubcomp, binary.BigEndian.Uint16(b))
			}
		}
		if len(out) > 0 {
			if _, err := c.Write(out); err != nil {
				return err
			}
		}
		if n >= want && releases <= 0 {
			return nil
		}
		if c.fill() != nil {
			return nil // what came is counted, what is missing is Lost
		}
	}
}
