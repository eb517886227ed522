// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/manormq/manor/infra/mqtt"
)

// Load is publishers and subscribers with persistent sessions, and an account of
// what was acknowledged and what came.
type Load struct {
	t      testing.TB
	addrs  []string
	prefix string
	pubs   []*publisher
	subs   []*subscriber

	paused  atomic.Bool // publishers send nothing new
	gather  atomic.Bool // every subscriber is to be connected
	begun   time.Time
	cancel  context.CancelFunc
	running sync.WaitGroup
	faults  atomic.Int64 // errors reported, so that their number is bounded
}

// Size is how much load there is.
type Size struct {
	Publishers  int // each with a topic for QoS 1 and one for QoS 2
	Subscribers int // a third each: always connected, now and then, at checkpoints only
	Rate        int // publishes a second of each publisher
}

// window is how many publishes of a publisher may be unacknowledged.
const window = 20

// NewLoad subscribes, and begins to publish.
func NewLoad(t testing.TB, addrs []string, size Size) *Load {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	l := &Load{t: t, addrs: addrs, prefix: "chaos", cancel: cancel, begun: time.Now()}
	t.Cleanup(l.Close)
	for i := range size.Publishers {
		l.pubs = append(l.pubs, newPublisher(l, i, size.Rate))
	}
	for i := range size.Subscribers {
		s := newSubscriber(l, i)
		l.subs = append(l.subs, s)
		if err := s.subscribe(); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
	}
	for _, s := range l.subs {
		l.running.Go(func() { s.run(ctx) })
	}
	for _, p := range l.pubs {
		l.running.Go(func() { p.run(ctx) })
	}
	return l
}

// Close ends all clients.
func (l *Load) Close() {
	l.cancel()
	l.running.Wait()
}

// errorf reports a broken promise. After 50 only their number grows.
func (l *Load) errorf(format string, args ...any) {
	switch n := l.faults.Add(1); {
	case n <= 50:
		l.t.Errorf("%s %s", time.Now().Format("15:04:05.000"), fmt.Sprintf(format, args...))
	case n == 51:
		l.t.Error("and more")
	}
}

// Acked is how many publishes have been acknowledged.
func (l *Load) Acked() (n int64) {
	for _, p := range l.pubs {
		n += p.acked.Load()
	}
	return n
}

// Longest is the longest time that a publisher waited for an acknowledgement
// since Longest was called last.
func (l *Load) Longest() (most time.Duration) {
	for _, p := range l.pubs {
		most = max(most, time.Duration(p.longest.Swap(0)))
	}
	return most
}

// Received is how many messages have come, doubles of QoS 1 included.
func (l *Load) Received() (n int64) {
	for _, s := range l.subs {
		n += s.received.Load()
	}
	return n
}

// Lost is how many connections of clients were lost so far.
func (l *Load) Lost() (n int64) {
	for _, p := range l.pubs {
		n += p.client.lost.Load()
	}
	for _, s := range l.subs {
		n += s.client.lost.Load()
	}
	return n
}

// Back waits until every client is well: each that should be connected has had
// an answer, and each publisher an acknowledgement of something, sent from now on.
// It returns how long that took.
func (l *Load) Back(limit time.Duration) time.Duration {
	l.t.Helper()
	begun := time.Now()
	for _, p := range l.pubs {
		p.client.proof.Store(false)
		p.proof.Store(begun.UnixNano())
	}
	for _, s := range l.subs {
		s.client.proof.Store(false)
	}
	ctx, cancel := context.WithTimeout(l.t.Context(), limit)
	defer cancel()
	err := poll(ctx, func() error {
		for _, p := range l.pubs {
			if at := p.proof.Load(); at != 0 {
				return fmt.Errorf("%s (%s) has no acknowledgement", p.name, p.client.state())
			}
		}
		for _, s := range l.subs {
			if s.wanted.Load() && !s.client.proof.Load() {
				return fmt.Errorf("%s (%s) has no answer", s.name, s.client.state())
			}
		}
		return nil
	})
	if err != nil {
		l.errorf("not every client is back after %v: %v", limit, err)
	}
	return time.Since(begun)
}

// Settle pauses the publishers, connects every subscriber and waits until all
// that was acknowledged has come; then it forgets that, and goes on. It returns
// how many promises were held and how long it took.
func (l *Load) Settle(limit time.Duration) (promises int, took time.Duration) {
	l.t.Helper()
	begun := time.Now()
	l.paused.Store(true)
	l.gather.Store(true)
	defer l.gather.Store(false)
	defer l.paused.Store(false)
	ctx, cancel := context.WithTimeout(l.t.Context(), limit)
	defer cancel()
	err := poll(ctx, func() error {
		for _, p := range l.pubs {
			if n := p.waiting.Load(); n > 0 {
				return fmt.Errorf("%d publishes of %s (%s) are not acknowledged", n, p.name, p.client.state())
			}
		}
		return nil
	})
	if err != nil {
		l.errorf("after %v: %v", limit, err)
	}
	err = poll(ctx, func() error {
		for _, s := range l.subs {
			for _, p := range l.pubs {
				for _, q := range []mqtt.QoS{1, 2} {
					if m := s.accounts[p.topic(q)].missing(p.promised(q)); len(m) > 0 {
						return fmt.Errorf("%s still lacks %d of %s", s.name, len(m), p.topic(q))
					}
				}
			}
		}
		return nil
	})
	if err != nil {
		l.t.Logf("after %v: %v", limit, err)
	}
	for _, p := range l.pubs {
		for _, q := range []mqtt.QoS{1, 2} {
			promised := p.forget(q)
			promises += len(promised)
			for _, s := range l.subs {
				if m := s.accounts[p.topic(q)].missing(promised); len(m) > 0 {
					l.errorf("%s (QoS %d, connected %s, %s) lacks %d of %d acknowledged messages of %s:%s", s.name, s.qos, s.presence, s.client.state(), len(m), len(promised), p.topic(q), brief(m))
				}
			}
		}
	}
	return promises, time.Since(begun)
}
