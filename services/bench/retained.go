// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"
)

// replays is how many subscribers come one after the other: the processor time of one
// is a few ticks of the kernel's clock.
const replays = 5

// retained: Topics retained messages, subscribers to all of them, removal.
func retained(o *Options, res *Result) error {
	px := prefix()
	pids := descendants(o.PIDs)
	total := float64(o.Topics)
	before, start := settle(pids), time.Now()
	if err := o.retain(px, make([]byte, o.Size)); err != nil {
		return err
	}
	took := time.Since(start)
	after := settle(pids)
	res.Extra["store_per_s"] = total / took.Seconds()
	res.Extra["store_cpu_us"] = micros(after.cpu-before.cpu) / total
	res.Extra["rss_bytes_per_topic"] = float64(after.rss-before.rss) / total

	before = sample(pids)
	var times []time.Duration
	for range replays {
		n, took, err := o.replay(px)
		if err != nil {
			return err
		}
		res.Delivered, res.Lost = res.Delivered+int64(n), res.Lost+int64(o.Topics-n)
		times = append(times, took)
	}
	after = sample(pids)
	slices.Sort(times)
	res.Extra["replay_ms"] = float64(times[replays/2].Milliseconds())
	res.Extra["replay_cpu_us"] = micros(after.cpu-before.cpu) / max(1, float64(res.Delivered))
	return o.retain(px, nil)
}

// retain publishes payload to every topic from four clients, at QoS 1 so that
// the count is the broker's own word, fifty at a time.
func (o *Options) retain(px string, payload []byte) error {
	const publishers = 4
	return each(publishers, publishers, func(p int) error {
		c, err := o.open(p, fmt.Sprintf("%sr%d", px, p), true, 4096)
		if err != nil {
			return err
		}
		defer c.leave()
		var b []byte
		id, acks := uint16(0), 0
		flush := func() error {
			if _, err := c.Write(b); err != nil {
				return err
			}
			b = b[:0]
			for ; acks > 0; acks-- {
				_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
				_, ack, err := c.next()
				if err == nil && failed(ack) {
					err = fmt.Errorf("a retained message was refused: % x", ack)
				}
				if err != nil {
					return err
				}
			}
			return nil
		}
		for i := p; i < o.Topics; i += publishers {
			var at int
			b, at, _ = c.appendPublish(b, fmt.Sprintf("%s/r/%d/%d", px, i%1000, i), 1, true, payload)
			id = id%60000 + 1
			binary.BigEndian.PutUint16(b[at:], id)
			if acks++; acks == 50 {
				if err := flush(); err != nil {
					return err
				}
			}
		}
		return flush()
	})
}

// replay subscribes to all topics and counts what comes, until all is there or
// nothing comes for 5 s.
func (o *Options) replay(px string) (n int, took time.Duration, err error) {
	c, err := o.open(0, px+"rs", true, 256<<10)
	if err != nil {
		return 0, 0, err
	}
	defer c.leave()
	start := time.Now()
	if _, err := c.Write(c.protocol.subscribe(1, 0, px+"/r/#")); err != nil {
		return 0, 0, err
	}
	last := start
	for n < o.Topics {
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		f, _, err := c.next()
		if err != nil {
			break
		}
		if f&kindMask == pktPublish {
			if n++; n%1024 == 0 || n == o.Topics {
				last = time.Now()
			}
		}
	}
	return n, last.Sub(start), nil
}
