// SPDX-License-Identifier: Apache-2.0

// Package usage asks all gateways of a region, over the bus, what a tenant uses of the
// quotas that they share. Gateways answer with Serve, the API asks with an Asker. It
// owns no goroutine; the bus calls it.
package usage

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"strings"
	"sync"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy/quota"
)

const (
	subjectAsks    = "quota.asks"
	subjectAnswers = "quota.answers."
	// alive is for how long a gateway counts that was not heard of; it reports four
	// times a second.
	alive = 2 * time.Second
	// patience is how long answers are waited for.
	patience = 500 * time.Millisecond
	// call bounds what is given to the bus.
	call = time.Second
)

// Used is what is used of each kind: connections, or so much a second lately.
type Used [quota.Kinds]float64

type ask struct {
	Asker  string `json:"asker"`
	Number uint64 `json:"number"`
	Tenant string `json:"tenant"`
}

type answer struct {
	Number uint64 `json:"number"`
	From   string `json:"from"`
	Used   Used   `json:"used"`
}

// Serve answers for the gateway that reports under the name from, until stop is called.
// of is called from one goroutine at a time and must not block.
func Serve(b bus.Bus, from string, of func(tenant string) Used) (stop func(), err error) {
	return b.Subscribe(subjectAsks, func(_ string, body []byte) {
		var a ask
		if json.Unmarshal(body, &a) != nil || bus.CheckSubject(subjectAnswers+a.Asker) != nil {
			return
		}
		body, err := json.Marshal(answer{Number: a.Number, From: from, Used: of(a.Tenant)})
		if err != nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), call)
		defer cancel()
		_ = b.Publish(ctx, subjectAnswers+a.Asker, body) // who asks does without
	})
}

// Asker asks. It is safe for concurrent use. Make it with New.
type Asker struct {
	bus  bus.Bus
	name string

	mu       sync.Mutex
	gateways map[string]time.Time // when each has reported last
	number   uint64               // of the last question
	open     map[uint64]*inquiry  // by number
	stops    []func()             // of the subscriptions, which are made when first needed
}

// inquiry is a question that is not answered by all yet.
type inquiry struct {
	got  map[string]Used
	more chan struct{} // has an element after an answer
}

// New returns an Asker on the bus.
func New(b bus.Bus) *Asker {
	return &Asker{bus: b, name: strings.ToLower(rand.Text()), gateways: map[string]time.Time{}, open: map[uint64]*inquiry{}}
}

// Run listens until ctx is done.
func (x *Asker) Run(ctx context.Context) error {
	for {
		err := x.listen()
		if err == nil {
			break
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
	<-ctx.Done()
	x.mu.Lock()
	stops := x.stops
	x.stops = nil
	x.mu.Unlock()
	for _, stop := range stops {
		stop()
	}
	return nil
}

func (x *Asker) listen() error {
	reports, err := x.bus.Subscribe(quota.Subject, func(_ string, body []byte) {
		from, leaving := quota.Sender(body)
		x.mu.Lock()
		defer x.mu.Unlock()
		if leaving {
			delete(x.gateways, from)
		} else if from != "" {
			x.gateways[from] = time.Now()
		}
	})
	if err != nil {
		return err
	}
	answers, err := x.bus.Subscribe(subjectAnswers+x.name, func(_ string, body []byte) { x.hear(body) })
	if err != nil {
		reports()
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.stops = []func(){reports, answers}
	return nil
}

func (x *Asker) hear(body []byte) {
	var a answer
	if json.Unmarshal(body, &a) != nil {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if q := x.open[a.Number]; q != nil {
		q.got[a.From] = a.Used
		select {
		case q.more <- struct{}{}:
		default:
		}
	}
}

// Usage is what a tenant uses at all gateways. The error is Unavailable if not all that
// live have answered, or none is known.
func (x *Asker) Usage(ctx context.Context, tenant string) (Used, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	q := &inquiry{got: map[string]Used{}, more: make(chan struct{}, 1)}
	x.mu.Lock()
	x.number++
	n := x.number
	x.open[n] = q
	x.mu.Unlock()
	defer func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		delete(x.open, n)
	}()
	body, err := json.Marshal(ask{Asker: x.name, Number: n, Tenant: tenant})
	if err != nil {
		return Used{}, errs.New(errs.Internal, "quota usage: %w", err)
	}
	if err := x.bus.Publish(ctx, subjectAsks, body); err != nil {
		return Used{}, err
	}
	for {
		if sum, ok := x.sum(q); ok {
			return sum, nil
		}
		select {
		case <-q.more:
		case <-ctx.Done():
			return Used{}, errs.New(errs.Unavailable, "not every gateway has said what the tenant %s uses", tenant)
		}
	}
}

// sum adds what was answered; ok is false while an answer is missing.
func (x *Asker) sum(q *inquiry) (sum Used, ok bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for id, at := range x.gateways {
		if time.Since(at) > alive {
			delete(x.gateways, id)
		} else if _, has := q.got[id]; !has {
			return sum, false
		}
	}
	for _, used := range q.got {
		for k := range sum {
			sum[k] += used[k]
		}
	}
	return sum, len(x.gateways) > 0
}
