// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/conform"
)

// publisher publishes numbers to two topics, one for each QoS, and notes what
// was acknowledged.
type publisher struct {
	load   *Load
	name   string
	client *client
	pause  time.Duration // between two publishes

	next    [3]int // by QoS; owned by run
	flying  []flight
	last    time.Time
	waiting atomic.Int64 // len(flying)
	acked   atomic.Int64
	// unanswered is since when nothing was acknowledged while something waited, and
	// longest the longest such time since it was asked for; both in ns.
	unanswered int64 // owned by run
	longest    atomic.Int64
	// proof is the time from which on a publish that is acknowledged shows that
	// the publisher is back; 0 is shown.
	proof atomic.Int64

	mu       sync.Mutex
	promises [3][]promise // guarded by mu, by QoS
}

// flight is a publish that is not acknowledged yet.
type flight struct {
	*conform.Publication
	qos    mqtt.QoS
	number int
	sent   time.Time
}

func newPublisher(l *Load, number, rate int) *publisher {
	name := fmt.Sprintf("p%d", number)
	return &publisher{load: l, name: name, client: newClient(l, name, number), pause: time.Second / time.Duration(rate)}
}

func (p *publisher) topic(q mqtt.QoS) string {
	return fmt.Sprintf("%s/%s/%d", p.load.prefix, p.name, q)
}

// run publishes until ctx ends, through any number of connections.
func (p *publisher) run(ctx context.Context) {
	for p.client.connect(ctx) {
		p.client.stay(ctx, func() bool { return false }, p.work)
	}
}

func (p *publisher) work() error {
	p.collect()
	for ; time.Since(p.last) > p.pause && len(p.flying) < window && !p.load.paused.Load(); p.last = p.last.Add(p.pause) {
		if time.Since(p.last) > 10*p.pause {
			p.last = time.Now().Add(-p.pause) // what was not sent in time is not sent in a burst
		}
		q := mqtt.QoS(1 + (p.next[1]+p.next[2])%2)
		f := flight{qos: q, number: p.next[q], sent: time.Now()}
		p.next[q]++
		var err error
		f.Publication, err = p.client.device.Publish(mqtt.Message{Topic: []byte(p.topic(q)), Payload: strconv.AppendInt(nil, int64(f.number), 10), QoS: q})
		p.flying = append(p.flying, f)
		p.waiting.Store(int64(len(p.flying)))
		if err != nil {
			return err
		}
	}
	return nil
}

// collect takes note of acknowledgements.
func (p *publisher) collect() {
	rest := p.flying[:0]
	now := time.Now().UnixNano()
	if len(p.flying) == 0 {
		p.unanswered = now
	}
	if was := p.longest.Load(); now-p.unanswered > was {
		p.longest.CompareAndSwap(was, now-p.unanswered)
	}
	for _, f := range p.flying {
		select {
		case <-f.Acked:
		default:
			rest = append(rest, f)
			continue
		}
		if f.Reason.Failed() {
			continue // the broker has not taken it
		}
		p.mu.Lock()
		p.promises[f.qos] = append(p.promises[f.qos], promise{number: f.number, sent: f.sent, at: time.Now()})
		p.mu.Unlock()
		p.acked.Add(1)
		p.unanswered = now
		if from := p.proof.Load(); from != 0 && f.sent.UnixNano() > from {
			p.proof.CompareAndSwap(from, 0)
		}
	}
	p.flying = rest
	p.waiting.Store(int64(len(rest)))
}

// promised returns what was acknowledged at that QoS and not forgotten.
func (p *publisher) promised(q mqtt.QoS) []promise {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.promises[q]
}

// forget returns what was acknowledged, and forgets it.
func (p *publisher) forget(q mqtt.QoS) []promise {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := p.promises[q]
	p.promises[q] = nil
	return all
}
