// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"sync"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
)

const (
	// subjectRates is where the processes of the API tell each other what they took.
	subjectRates = "api.rates"
	// ratesEvery is how often they do.
	ratesEvery = 250 * time.Millisecond
	// replicaGone is after what time, in which others were heard, a process is taken to
	// be gone.
	replicaGone = 2 * time.Second
	// replicasUnheard is how many processes there are taken to be before there was time to
	// hear the others.
	replicasUnheard = 3
	// tookMost is how many names a message has.
	tookMost = 2000
)

// told is what a process took since it told it last. It is sent even if that is nothing,
// since that says that the process is there.
type told struct {
	From string `json:"from"`
	Took []took `json:"took,omitempty"`
}

type took struct {
	Name  string `json:"name"`
	Limit int64  `json:"limit"`
	N     int64  `json:"n"`
}

// jointly has the processes on a bus keep the rates together. How many there are is from
// who is heard; while the bus is away it is as many as there were, each of which is taken
// to be asked for as much as this one.
type jointly struct {
	rates *apiRates
	bus   bus.Bus
	log   *slog.Logger
	now   func() time.Time
	self  string

	mu sync.Mutex
	// heard is when a process was heard last, this one too.
	heard map[string]time.Time // guarded by mu
}

func newJointly(rates *apiRates, b bus.Bus, log *slog.Logger, now func() time.Time) *jointly {
	rates.replicas.Store(replicasUnheard)
	return &jointly{rates: rates, bus: b, log: log, now: now, self: rand.Text(), heard: map[string]time.Time{}}
}

// run exchanges until ctx is done.
func (j *jointly) run(ctx context.Context) {
	stop, err := j.bus.Subscribe(subjectRates, func(_ string, body []byte) { j.hear(j.now(), body) })
	if err != nil {
		j.log.Error("other processes of the API are not heard: api_rate is kept by this one alone", "error", err)
		return
	}
	defer stop()
	begun := time.Now()
	tick := time.NewTicker(ratesEvery)
	defer tick.Stop()
	for last := j.now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			now := j.now()
			n := j.replicas()
			if time.Since(begun) < 2*ratesEvery {
				n = max(n, replicasUnheard)
			}
			j.exchange(ctx, now, n, now.Sub(last))
			last = now
		}
	}
}

// hear takes what a process tells.
func (j *jointly) hear(now time.Time, body []byte) {
	var t told
	if err := json.Unmarshal(body, &t); err != nil || t.From == "" {
		j.log.Warn("expected what another process of the API took, in JSON", "error", err)
		return
	}
	j.mu.Lock()
	j.heard[t.From] = now
	j.mu.Unlock()
	if t.From == j.self {
		return
	}
	for _, x := range t.Took {
		if x.N <= 0 || x.Limit <= 0 {
			continue
		}
		r := j.rates.of(x.Name)
		r.limit.CompareAndSwap(0, x.Limit)
		r.joint.Limited(now, x.Limit, apiRateBurst)
		r.others.Add(x.N)
		j.rates.stir(x.Name, r)
	}
}

// replicas is how many processes there are, this one too. Those are gone that were not
// heard for replicaGone before this one was heard last: while the bus is away nobody is.
func (j *jointly) replicas() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	last := j.heard[j.self]
	for id, at := range j.heard {
		if last.Sub(at) > replicaGone {
			delete(j.heard, id)
		}
	}
	n := len(j.heard)
	if last.IsZero() {
		n++
	}
	return max(n, 1)
}

// exchange tells what was taken, and takes off what others said.
func (j *jointly) exchange(ctx context.Context, now time.Time, n int, past time.Duration) {
	j.rates.replicas.Store(int64(n))
	j.rates.mu.Lock()
	stirred := j.rates.stirred
	j.rates.stirred = map[string]*apiRate{}
	j.rates.mu.Unlock()
	all := make([]took, 0, len(stirred))
	for name, r := range stirred {
		others := r.others.Swap(0)
		k := r.joint.Exchange(now, others, n, past)
		if k > 0 {
			all = append(all, took{name, r.limit.Load(), k})
		}
		if k > 0 || others > 0 {
			j.rates.stir(name, r) // that it was quiet is to be known, too
		}
	}
	for first := true; first || len(all) > 0; first = false {
		part := all[:min(len(all), tookMost)]
		all = all[len(part):]
		if err := j.tell(ctx, part); err != nil {
			for _, x := range part {
				j.rates.of(x.Name).others.Add(x.N * int64(n-1))
			}
		}
	}
}

func (j *jointly) tell(ctx context.Context, part []took) error {
	body, err := json.Marshal(told{j.self, part})
	if err != nil {
		return errs.New(errs.Internal, "tell what was taken: %w", err)
	}
	return j.bus.Publish(ctx, subjectRates, body)
}
