// SPDX-License-Identifier: Apache-2.0

// Package load tells when a node has more to do than it can. It measures how long
// goroutines that could run wait for a processor, and how much of the memory is
// used; who owns a store adds how long its commits take. Steady back-pressure is
// no overload: sockets that are not read cost nothing.
package load

import (
	"bufio"
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Level is how overloaded a node is, and what it does about it; each level does
// what those below it do too.
type Level uint8

// The levels.
const (
	Calm   Level = iota
	Slow         // the heaviest tenants are read more slowly
	Refuse       // few new connections are let in, the others refused
	Shed         // QoS 0 that waits too long, or comes too fast, is dropped
)

func (l Level) String() string {
	if l > Shed {
		return fmt.Sprintf("load(%d)", uint8(l))
	}
	return [...]string{"calm", "slow", "refuse", "shed"}[l]
}

// Signals are what was measured.
type Signals struct {
	// RunQueue is how long goroutines wait to run: 99 % of them less.
	RunQueue time.Duration
	// Memory is the part of what may be used that is, 0 to 1 and above.
	Memory float64
	// Commit is how long a commit takes; 0 where there are none.
	Commit time.Duration
}

// bounds are from where on each level holds, by any of the signals.
var bounds = [...]Signals{
	Slow:   {RunQueue: 20 * time.Millisecond, Memory: 0.75, Commit: 250 * time.Millisecond},
	Refuse: {RunQueue: 100 * time.Millisecond, Memory: 0.85, Commit: time.Second},
	Shed:   {RunQueue: 400 * time.Millisecond, Memory: 0.92, Commit: 4 * time.Second},
}

// reached reports whether any signal is at part of the bounds of l.
func (s Signals) reached(l Level, part float64) bool {
	b := bounds[l]
	over := func(d, bound time.Duration) bool { return float64(d) >= part*float64(bound) }
	return over(s.RunQueue, b.RunQueue) || s.Memory >= part*b.Memory || over(s.Commit, b.Commit)
}

// The Meter goes up when a level is reached twice in a row, and down by one when
// nothing was near it for calmTime.
const (
	calmTime = 2 * time.Second
	near     = 0.8
)

// Meter turns signals into a level. Update must not be called concurrently.
type Meter struct {
	level, before Level
	since         time.Time // of which nothing was near level
}

// Update takes what was measured and returns the level from now on.
func (m *Meter) Update(now time.Time, s Signals) Level {
	reached := Calm
	for l := Slow; l <= Shed; l++ {
		if s.reached(l, 1) {
			reached = l
		}
	}
	if both := min(reached, m.before); both > m.level {
		m.level = both
	}
	m.before = reached
	switch {
	case m.level == Calm || s.reached(m.level, near):
		m.since = now
	case now.Sub(m.since) >= calmTime:
		m.level--
		m.since = now
	}
	return m.level
}

// Sampler measures this process. Sample must not be called concurrently.
type Sampler struct {
	samples []metrics.Sample
	before  []uint64 // counts of the histogram at the last Sample
	limit   uint64
}

// NewSampler returns a Sampler. The memory that may be used is GOMEMLIMIT, if that
// is set, else the limit of the control group, else what the machine has.
func NewSampler() *Sampler {
	s := &Sampler{samples: []metrics.Sample{
		{Name: "/sched/latencies:seconds"},
		{Name: "/memory/classes/total:bytes"},
		{Name: "/memory/classes/heap/released:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"},
		{Name: "/gc/heap/live:bytes"},
	}, limit: memoryLimit()}
	s.Sample()
	return s
}

// Sample returns what was measured since the last call.
func (s *Sampler) Sample() Signals {
	metrics.Read(s.samples)
	out := Signals{RunQueue: s.waits(s.samples[0].Value)}
	if s.limit > 0 {
		of := func(i int) float64 { return float64(s.samples[i].Value.Uint64()) }
		// Garbage does not count: the collector lets it grow as far as GOMEMLIMIT
		// allows. What lived at the last collection does, with all that is no heap.
		out.Memory = (of(1) - of(2) - of(3) - of(4) - of(5) + of(6)) / float64(s.limit)
	}
	return out
}

// fewWaits is below how many there is no telling what 99 % of them are. The runtime
// measures one in eight.
const fewWaits = 50

// waits is below what 99 % of the waits since the last call were.
func (s *Sampler) waits(v metrics.Value) time.Duration {
	h := v.Float64Histogram()
	if s.before == nil {
		s.before = make([]uint64, len(h.Counts))
	}
	total := uint64(0)
	for i, n := range h.Counts {
		total += n - s.before[i]
	}
	if total < fewWaits {
		copy(s.before, h.Counts)
		return 0
	}
	above, at := total/100, 0.0
	for i, count := range slices.Backward(h.Counts) {
		n := count - s.before[i]
		if n > above {
			if at = h.Buckets[i]; math.IsInf(at, -1) {
				at = 0
			}
			break
		}
		above -= n
	}
	copy(s.before, h.Counts)
	return time.Duration(at * float64(time.Second))
}

// watchEvery is how often Watch looks.
const watchEvery = 250 * time.Millisecond

// Watch measures this process four times a second until ctx is done, and gives f
// the level and what it is from. commit, if not nil, tells how long commits take.
func Watch(ctx context.Context, commit func() time.Duration, f func(now time.Time, l Level, s Signals)) {
	sampler, meter := NewSampler(), Meter{}
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			s := sampler.Sample()
			if commit != nil {
				s.Commit = commit()
			}
			f(now, meter.Update(now, s), s)
		}
	}
}

// memoryLimit is in bytes; 0 if it is not known.
func memoryLimit() uint64 {
	if n := debug.SetMemoryLimit(-1); n != math.MaxInt64 {
		return uint64(n)
	}
	files := []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}
	if own, err := os.ReadFile("/proc/self/cgroup"); err == nil { // outside of a container
		if _, path, ok := strings.Cut(string(own), "0::"); ok {
			path, _, _ = strings.Cut(path, "\n")
			files = append([]string{filepath.Join("/sys/fs/cgroup", path, "memory.max")}, files...)
		}
	}
	for _, file := range files {
		text, _ := os.ReadFile(file)
		// The older one says a number beyond all memory for none.
		if n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 63); err == nil && n < 1<<50 {
			return n
		}
	}
	file, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0
	}
	defer func() { _ = file.Close() }()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var kib uint64
		if _, err := fmt.Sscanf(lines.Text(), "MemTotal: %d kB", &kib); err == nil {
			return kib << 10
		}
	}
	return 0
}
