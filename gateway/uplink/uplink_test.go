// SPDX-License-Identifier: Apache-2.0

package uplink

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manormq/manor/infra/link"
)

func TestTable(t *testing.T) {
	var table Table[int]
	seen := map[link.Channel]bool{}
	var chs []link.Channel
	vs := make([]int, 3000)
	for i := range vs {
		ch, err := table.Add(&vs[i])
		if err != nil || seen[ch] {
			t.Fatalf("Add = %d, %v", ch, err)
		}
		seen[ch] = true
		chs = append(chs, ch)
	}
	for i, ch := range chs {
		if table.Get(ch) != &vs[i] {
			t.Fatalf("Get(%d) is another's", ch)
		}
		table.Remove(ch)
		table.Remove(ch) // once is enough
		if table.Get(ch) != nil {
			t.Fatalf("Get(%d) after Remove", ch)
		}
	}
	// Slots are used again, under other names.
	for i := range vs {
		ch, err := table.Add(&vs[i])
		if err != nil || seen[ch] {
			t.Fatalf("Add = %d again, %v", ch, err)
		}
		if table.Get(ch) != &vs[i] {
			t.Fatalf("Get(%d) is another's", ch)
		}
	}
	n := 0
	table.All(func(*int) { n++ })
	if n != len(vs) || table.next > 5000 {
		t.Errorf("All visits %d, %d slots are used", n, table.next)
	}
	if table.Get(1<<20-1) != nil {
		t.Error("a channel that never was")
	}
}

type nobody struct{ lost []error }

func (*nobody) Receive(*Link[int], *link.Down) {}
func (*nobody) Flush()                         {}
func (*nobody) FlushEarly()                    {}
func (h *nobody) Lost(_ *Link[int], err error) { h.lost = append(h.lost, err) }
func (*nobody) Send(*link.Up) error            { return nil }
func (*nobody) Post(*link.Up) error            { return nil }
func (*nobody) Close() error                   { return nil }

func TestPoolDialsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var gws []link.Gateway
		var at []time.Time
		down := true
		h := &nobody{}
		p := NewPool[int](1, DialerFunc(func(_ context.Context, gw link.Gateway) (link.Broker, error) {
			mu.Lock()
			defer mu.Unlock()
			at = append(at, time.Now())
			if down {
				return nil, errors.New("refused")
			}
			gws = append(gws, gw)
			return h, nil
		}), h, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { p.Run(ctx); close(done) }()
		time.Sleep(time.Minute) // virtual
		mu.Lock()
		attempts := len(at)
		down = false
		mu.Unlock()
		if attempts < 12 || attempts > 40 {
			t.Errorf("%d attempts in a minute", attempts)
		}
		if p.Pick("a/b") != nil || p.Up() != 0 {
			t.Error("there is a link")
		}
		time.Sleep(10 * time.Second)
		first := p.Pick("a/b")
		if first == nil || p.Up() != 1 {
			t.Fatal("there is no link")
		}
		mu.Lock()
		gw := gws[0]
		mu.Unlock()
		gw.Receive(&link.Down{Frames: []link.DownFrame{{Kind: link.DownGoaway}}})
		if p.Pick("a/b") != nil {
			t.Error("a link that says goaway is picked")
		}
		gw.Lost(errors.New("gone"))
		gw.Lost(errors.New("gone twice"))
		time.Sleep(time.Second)
		if next := p.Pick("a/b"); next == nil || next == first {
			t.Error("the lost link was not replaced")
		}
		if len(h.lost) != 1 || h.lost[0].Error() != "gone" {
			t.Errorf("Lost was called with %v", h.lost)
		}
		cancel()
		<-done
	})
}

// A session's channels are all on one link, and sessions on all links.
func TestPickIsTheSame(t *testing.T) {
	p := NewPool[int](3, nil, &nobody{}, slog.New(slog.DiscardHandler))
	for i := range p.links {
		p.links[i].Store(&Link[int]{})
	}
	used := map[*Link[int]]bool{}
	for i := range 200 {
		name := "acme/" + strconv.Itoa(i)
		l := p.Pick(name)
		used[l] = true
		for range 3 {
			if p.Pick(name) != l {
				t.Fatalf("%s moves between links", name)
			}
		}
	}
	if len(used) != 3 {
		t.Errorf("%d of 3 links are used", len(used))
	}
}

// A broker that takes every link and ends it at once is not asked hundreds of times
// a second; one that lived for long is asked again at once.
func TestPoolWaitsAfterShortLinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var at []time.Time
		life := time.Duration(0)
		h := &nobody{}
		p := NewPool[int](1, DialerFunc(func(_ context.Context, gw link.Gateway) (link.Broker, error) {
			mu.Lock()
			defer mu.Unlock()
			at = append(at, time.Now())
			if l, ok := gw.(*Link[int]); ok {
				time.AfterFunc(life, func() { l.Lost(errors.New("refused")) })
			}
			return h, nil
		}), h, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { p.Run(ctx); close(done) }()
		time.Sleep(time.Minute)
		synctest.Wait()
		mu.Lock()
		if n := len(at); n < 10 || n > 40 {
			t.Errorf("%d links within a minute, each ended at once: expected pauses of up to %v", n, pauseMost)
		}
		life = shortLife
		at = at[:0]
		mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		mu.Lock()
		if n, want := len(at), int(time.Minute/shortLife); n < want-5 || n > want+1 {
			t.Errorf("%d links within a minute, each lived %v: expected about %d", n, shortLife, want)
		}
		mu.Unlock()
		cancel()
		<-done
	})
}
