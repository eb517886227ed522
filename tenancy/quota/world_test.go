// SPDX-License-Identifier: Apache-2.0

package quota_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/manormq/manor/tenancy/quota"
)

// world is a region of gateways on a bus that loses and delays, in steps of 10 ms.
// There is one tenant, and its limit is 1000.
type world struct {
	now    time.Time
	random *rand.Rand
	sites  []*site // in the order of their coming
	mail   []letter
	loss   float64
	delay  time.Duration // at most
	kind   quota.Kind
	limit  float64
	born   int
	sent   int // messages
	told   []string
}

type letter struct {
	at   time.Time
	to   *site
	body []byte
}

// site is a gateway with its bucket and one client, or its connections.
type site struct {
	name  string
	a     *quota.Allocator
	meter quota.Meter
	offer float64 // a second, or how many clients want to be connected
	// size is what passes at once: a piece that begins within the bucket may end beyond
	// it, which is then in debt.
	size   float64
	tokens float64
	// backlog is what the client has to say; until is when it looks again, if it must wait.
	backlog      float64
	until        time.Time
	count        float64 // since the last tick, or of connections
	passed       float64
	waits        bool
	next, before time.Time
	cut, dead    bool
}

const step = 10 * time.Millisecond

var start = time.Unix(1_800_000_000, 0)

func newWorld(seed uint64, kind quota.Kind) *world {
	return &world{now: start, random: rand.New(rand.NewPCG(seed, 1)), kind: kind, limit: 1000, delay: 20 * time.Millisecond}
}

func (w *world) resource() quota.Resource { return quota.Resource{Tenant: "acme", Kind: w.kind} }

func (w *world) add() *site {
	w.born++
	s := &site{size: 1, name: fmt.Sprintf("gw-%d", w.born), next: w.now.Add(time.Duration(w.random.Int64N(int64(quota.Interval))))}
	s.a, s.before = quota.New(s.name), w.now
	w.sites = append(w.sites, s)
	return s
}

func (w *world) kill(s *site, leaving bool) {
	if leaving {
		w.send(s, &quota.Report{From: s.name, Leaving: true})
	}
	s.dead = true
	w.sites = slices.DeleteFunc(w.sites, func(x *site) bool { return x == s })
}

func (w *world) send(from *site, r *quota.Report) {
	for _, body := range r.Encode() {
		w.sent++
		for _, to := range w.sites {
			if from.cut || to.cut || w.random.Float64() < w.loss {
				continue
			}
			w.mail = append(w.mail, letter{w.now.Add(time.Duration(w.random.Int64N(int64(w.delay)))), to, body})
		}
	}
}

// lent is what s may use.
func (w *world) lent(s *site) float64 { return s.a.Lent(w.resource()) }

// sum is what all may use.
func (w *world) sum() (sum float64) {
	for _, s := range w.sites {
		sum += w.lent(s)
	}
	return sum
}

func (w *world) tick(s *site) {
	past := w.now.Sub(s.before)
	s.before, s.next = w.now, s.next.Add(quota.Interval)
	var d quota.Need
	if w.kind == quota.Connections {
		d = s.meter.SampleCount(int64(s.count), s.waits, int64(w.limit))
	} else {
		d = s.meter.Sample(past, uint64(s.count), s.waits || s.asleep(), int64(w.limit), w.lent(s))
		s.count = 0
	}
	s.waits = false
	t := s.a.Tick(w.now, map[quota.Resource]quota.Need{w.resource(): d})
	if s.asleep() && s.meter.Grown(w.lent(s)) {
		s.until = time.Time{}
	}
	for _, c := range t.Crossed {
		w.told = append(w.told, fmt.Sprintf("%s tells of level %d", s.name, c.Level))
	}
	w.send(s, &t.Report)
}

func (s *site) asleep() bool { return !s.until.IsZero() }

// serve has the clients of s do for one step what they want, and may. Who must wait
// computes once for how long, as at a gateway.
func (w *world) serve(s *site) {
	lent := w.lent(s) * w.limit
	if w.kind == quota.Connections {
		most := float64(int(lent + 1e-6))
		s.count = max(min(s.count, s.offer), min(s.offer, most))
		s.waits = s.waits || s.offer > s.count
		return
	}
	s.tokens = min(s.tokens+lent*step.Seconds(), max(lent, 1))
	if s.offer == 0 {
		s.backlog, s.until = 0, time.Time{}
		return
	}
	s.backlog = min(s.backlog+s.offer*step.Seconds(), s.offer/4+s.size)
	if w.now.Before(s.until) {
		return
	}
	s.until = time.Time{}
	for ; s.backlog >= s.size && s.tokens >= 1; s.backlog -= s.size {
		s.tokens -= s.size
		s.count += s.size
		s.passed += s.size
	}
	if s.backlog >= s.size {
		s.waits = true
		wait := time.Duration((1 - s.tokens) / lent * float64(time.Second))
		s.until = w.now.Add(min(max(wait, 20*time.Millisecond), time.Minute))
	}
}

// run lets time pass. each is called after every step.
func (w *world) run(d time.Duration, each func()) {
	for end := w.now.Add(d); w.now.Before(end); {
		w.now = w.now.Add(step)
		w.mail = slices.DeleteFunc(w.mail, func(l letter) bool {
			if l.at.After(w.now) {
				return false
			}
			if !l.to.dead && !l.to.cut {
				r, err := quota.Decode(l.body)
				if err != nil {
					panic(err)
				}
				l.to.a.Hear(w.now, r)
			}
			return true
		})
		for _, s := range slices.Clone(w.sites) {
			if !s.next.After(w.now) {
				w.tick(s)
			}
			w.serve(s)
		}
		if each != nil {
			each()
		}
	}
}
