// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"slices"
	"time"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/services/broker/partition"
)

// A lane is where writes of one kind are carried out that are long and that no client
// waits for. What a replica has written behind one of them goes the same way, so that
// its writes stay in their order. A lane rests after each write for some times as long as
// that took: so much is left of the processors and of the disk for those who wait.
type lane struct {
	*disk
	wake chan struct{}
	rest int
	// ops of a replica, and behind them: guarded by mu of the disk. of are their
	// replicas, and the one that is being written.
	ops []op
	of  map[*replica]bool
}

// The lanes.
const (
	laneWipe = iota
	laneCopy
)

var laneRest = [...]int{laneWipe: 3, laneCopy: 1}

// splitLocked takes what goes to the lanes out of a group, whose memory the rest stays
// in. What is written at a start stays as it is, since the mark is behind all of it.
func (d *disk) splitLocked(group []op) (first []op, slow [len(laneRest)][]op) {
	if slices.ContainsFunc(group, func(o op) bool { return o.started }) {
		return group, slow
	}
	first = group[:0]
	for _, o := range group {
		k := slices.IndexFunc(d.lanes[:], func(l lane) bool { return l.of[o.r] })
		switch {
		case k >= 0:
		case o.write.Kind == partition.Wipe:
			k = laneWipe
		case o.write.Kind == partition.PutPiece:
			k = laneCopy
		default:
			first = append(first, o)
			continue
		}
		d.lanes[k].of[o.r] = true
		slow[k] = append(slow[k], o)
	}
	return first, slow
}

func (d *disk) toLanes(slow [len(laneRest)][]op) {
	for k, ops := range slow {
		if len(ops) == 0 {
			continue
		}
		l := &d.lanes[k]
		d.mu.Lock()
		l.ops = append(l.ops, ops...)
		for i := range ops { // it may have been done with those before meanwhile
			l.of[ops[i].r] = true
		}
		d.mu.Unlock()
		signal(l.wake)
	}
}

// run does what is given to the lane, one replica at a time.
func (l *lane) run(ctx context.Context) error {
	w := writer{disk: l.disk, newest: make(map[*replica]unsynced), store: paced{l.host.config.Store, ctx, l.rest}}
	for {
		l.mu.Lock()
		ops := l.takeLocked()
		l.mu.Unlock()
		if len(ops) == 0 {
			select {
			case <-ctx.Done():
				return nil
			case <-l.wake:
			}
			continue
		}
		if err := w.group(ctx, ops); err != nil {
			return err
		}
		r := ops[0].r
		l.mu.Lock()
		if !slices.ContainsFunc(l.ops, func(o op) bool { return o.r == r }) {
			delete(l.of, r)
		}
		l.mu.Unlock()
	}
}

// takeLocked takes the ops of the first replica.
func (l *lane) takeLocked() (ops []op) {
	var left []op
	for _, o := range l.ops {
		if o.r == l.ops[0].r {
			ops = append(ops, o)
		} else {
			left = append(left, o)
		}
	}
	l.ops = left
	return ops
}

// restMost bounds how long a lane rests at once.
const restMost = time.Second

// paced is a store that rests after each write.
type paced struct {
	kv.Store
	ctx  context.Context
	rest int
}

// Apply implements kv.Store.
func (p paced) Apply(b *kv.Batch, sync bool) error {
	begun := time.Now()
	err := p.Store.Apply(b, sync)
	rest := min(time.Since(begun)*time.Duration(p.rest), restMost)
	if rest == 0 || sync { // that was to wait
		return err
	}
	t := time.NewTimer(rest)
	defer t.Stop()
	select {
	case <-t.C:
	case <-p.ctx.Done():
	}
	return err
}
