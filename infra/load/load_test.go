// SPDX-License-Identifier: Apache-2.0

package load_test

import (
	"runtime"
	"runtime/debug"
	"sync"
	"testing"
	"time"

	"github.com/manormq/manor/infra/load"
)

func TestMeter(t *testing.T) {
	var m load.Meter
	now := time.Unix(1_800_000_000, 0)
	step := func(s load.Signals, d time.Duration, want load.Level) {
		t.Helper()
		now = now.Add(d)
		if got := m.Update(now, s); got != want {
			t.Fatalf("%+v: %s, expected %s", s, got, want)
		}
	}
	const tick = 250 * time.Millisecond
	calm := load.Signals{RunQueue: time.Millisecond, Memory: 0.3, Commit: time.Millisecond}
	busy := load.Signals{RunQueue: 150 * time.Millisecond, Memory: 0.3}
	step(calm, tick, load.Calm)
	step(busy, tick, load.Calm) // once is a spike
	step(calm, tick, load.Calm)
	step(busy, tick, load.Calm)
	step(busy, tick, load.Refuse)
	step(load.Signals{RunQueue: 90 * time.Millisecond}, 10*time.Second, load.Refuse) // near it
	step(calm, 1900*time.Millisecond, load.Refuse)
	step(calm, 200*time.Millisecond, load.Slow)
	step(calm, 1900*time.Millisecond, load.Slow)
	step(calm, 200*time.Millisecond, load.Calm)
	full := load.Signals{Memory: 0.95}
	step(full, tick, load.Calm)
	step(full, tick, load.Shed)
	step(load.Signals{Commit: 5 * time.Second}, tick, load.Shed)
	step(calm, 10*time.Second, load.Refuse)
}

// The smaller of two readings in a row counts.
func TestMeter_GoesUpAsFarAsBothSay(t *testing.T) {
	var m load.Meter
	now := time.Unix(1_800_000_000, 0)
	m.Update(now, load.Signals{Memory: 0.99})
	if got := m.Update(now, load.Signals{Memory: 0.8}); got != load.Slow {
		t.Errorf("%s, expected slow", got)
	}
}

func TestSampler_SeesMemory(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(1 << 30))
	s := load.NewSampler()
	before := s.Sample().Memory
	held := make([]byte, 256<<20)
	for i := 0; i < len(held); i += 4096 {
		held[i] = 1
	}
	runtime.GC()
	after := s.Sample().Memory
	if d := after - before; d < 0.2 || d > 0.4 {
		t.Errorf("a quarter of the limit more: %.2f -> %.2f", before, after)
	}
	runtime.KeepAlive(held)
	runtime.GC() // it is garbage from here on, which is no use of memory
	if d := s.Sample().Memory - before; d > 0.05 {
		t.Errorf("garbage counts %.2f", d)
	}
}

// Goroutines that wait for a processor are seen, and what was seen is not seen
// again.
func TestSampler_SeesWaiting(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	s := load.NewSampler()
	var wg sync.WaitGroup
	for range 1000 {
		wg.Go(func() {
			for end := time.Now().Add(time.Millisecond); time.Now().Before(end); {
			}
		})
	}
	wg.Wait()
	if d := s.Sample().RunQueue; d < 50*time.Millisecond {
		t.Errorf("1000 goroutines with 1 ms each on one processor: %s", d)
	}
	if d := s.Sample().RunQueue; d > 50*time.Millisecond {
		t.Errorf("nothing to do: %s", d)
	}
}
