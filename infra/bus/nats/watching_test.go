// SPDX-License-Identifier: Apache-2.0

package nats

import (
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/manormq/manor/infra/bus"
)

// stopped is a watch of which only its end matters.
type stopped struct {
	jetstream.KeyWatcher
	is atomic.Bool
}

func (w *stopped) Stop() error {
	w.is.Store(true)
	return nil
}

// TestWatching_Begin holds that a watch which begins when it was given up is an error,
// and that the next one is waited for longer, until one begins in time.
func TestWatching_Begin(t *testing.T) {
	lost := errors.New("lost")
	synctest.Test(t, func(t *testing.T) {
		s := &watching{}
		for i, c := range []struct {
			takes        time.Duration
			fails, want  error
			patience     time.Duration // afterwards
			ended, stops bool
		}{
			{takes: 1100 * time.Millisecond, want: errLate, patience: askAgain, ended: true, stops: true},
			{takes: 2100 * time.Millisecond, fails: lost, want: lost, patience: 2 * askAgain, ended: true},
			{takes: 2100 * time.Millisecond, patience: 0},
			{takes: 900 * time.Millisecond, fails: lost, want: lost, patience: askAgain},
		} {
			w, ended := &stopped{}, false
			got, err := s.begin(func() { ended = true }, func() (jetstream.KeyWatcher, error) {
				time.Sleep(c.takes)
				return w, c.fails
			})
			time.Sleep(callTimeout) // nothing comes behind
			synctest.Wait()
			if !errors.Is(err, c.want) || (got == nil) != (err != nil) || s.patience != c.patience || ended != c.ended || w.is.Load() != c.stops {
				t.Errorf("row %d: %v, %v, patience %s, ended %v, stopped %v; expected %+v", i, got, err, s.patience, ended, w.is.Load(), c)
			}
		}
	})
}

// TestWatching_Heard holds up to when a watch is complete.
func TestWatching_Heard(t *testing.T) {
	began, later := time.Unix(100, 0), time.Unix(102, 0)
	for name, c := range map[string]struct {
		s    watching
		last uint64
		want time.Time
	}{
		"all was told":            {watching{synced: true, reached: true, last: 5}, 5, later},
		"more is to come":         {watching{synced: true, reached: true, last: 5}, 6, time.Time{}},
		"what was due is gone":    {watching{synced: true, reached: true, last: 5, aim: &position{last: 9, at: began}}, 5, later},
		"all is gone":             {watching{synced: true, reached: true, last: 5, aim: &position{last: 9, at: began}}, 0, later},
		"more than due is there":  {watching{synced: true, reached: true, last: 5, aim: &position{last: 6, at: began}}, 7, time.Time{}},
		"it has not told all yet": {watching{reached: true, last: 5, aim: &position{last: 9, at: began}}, 5, time.Time{}},
	} {
		var got time.Time
		c.s.Watch = bus.Watch{Current: func(at time.Time) { got = at }}
		c.s.heard(&position{last: c.last, at: later})
		if !got.Equal(c.want) {
			t.Errorf("%s: complete up to %v, expected %v", name, got, c.want)
		}
	}
}

// TestPace_Look holds when a watch is begun anew: when its bucket has had no leader, and when it
// is behind at two looks without having told anything between them.
func TestPace_Look(t *testing.T) {
	type look struct {
		told, last uint64 // by the watch, and what the bucket has
		late       bool
		want       error
	}
	for name, c := range map[string]struct {
		synced bool
		looks  []look
	}{
		"it keeps up":                {true, []look{{told: 5, last: 5}, {told: 5, last: 5}, {told: 9, last: 9}}},
		"it is behind and goes on":   {true, []look{{told: 5, last: 9}, {told: 6, last: 9}, {told: 7, last: 9}, {told: 9, last: 9}}},
		"it catches up at the next":  {true, []look{{told: 5, last: 9}, {told: 9, last: 9}, {told: 9, last: 10}}},
		"it has stopped":             {true, []look{{told: 5, last: 9}, {told: 5, last: 9, want: errBehind}}},
		"it never tells the first":   {false, []look{{told: 5, last: 5}, {told: 5, last: 5, want: errBehind}}},
		"there was no leader":        {true, []look{{told: 5, last: 5}, {told: 5, last: 5, late: true, want: errLeader}}},
		"none, and it is behind too": {true, []look{{told: 5, last: 9, late: true, want: errLeader}}},
	} {
		s, x := &watching{synced: c.synced, last: 5}, pace{told: 5}
		for i, l := range c.looks {
			s.last = l.told
			if err := x.look(s, &position{last: l.last, late: l.late}); !errors.Is(err, l.want) {
				t.Errorf("%s, look %d: %v, expected %v", name, i, err, l.want)
			}
		}
	}
}
