// SPDX-License-Identifier: Apache-2.0

package member

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/bus/mem"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/services/broker/placement"
)

// observed is what Events told.
type observed struct {
	mu      sync.Mutex
	peers   map[string]string // guarded by mu, as all below
	states  map[string]State
	left    []string
	retired int
	told    int
}

func (o *observed) events() Events {
	o.states = map[string]State{}
	locked := func(f func()) {
		o.mu.Lock()
		defer o.mu.Unlock()
		f()
	}
	return Events{
		Peers:   func(p map[string]string) { locked(func() { o.peers = p }) },
		Changed: func(m Member) { locked(func() { o.states[m.Name] = m.State }) },
		Left:    func(name string) { locked(func() { o.left = append(o.left, name) }) },
		Told:    func() { locked(func() { o.told++ }) },
		Retired: func() { locked(func() { o.retired++ }) },
	}
}

// toldTimes is how often it was told that all members are told.
func (o *observed) toldTimes() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.told
}

func (o *observed) want(t *testing.T, when string, peers, states map[string]string, left ...string) {
	t.Helper()
	synctest.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()
	got := map[string]string{}
	for name, s := range o.states {
		got[name] = s.String()
	}
	if diff := cmp.Diff(peers, o.peers); diff != "" {
		t.Errorf("%s: peers (-want +got):\n%s", when, diff)
	}
	if diff := cmp.Diff(states, got); diff != "" {
		t.Errorf("%s: states (-want +got):\n%s", when, diff)
	}
	if !slices.Equal(o.left, left) {
		t.Errorf("%s: left %q, want %q", when, o.left, left)
	}
}

// beating rewrites a heartbeat each second until ctx is done.
func beating(ctx context.Context, t *testing.T, beats bus.Bucket, name string) {
	for count := uint64(1); ; count++ {
		b := placement.Beat{Count: count, Cluster: name + ":1", Links: name + ":2", Zone: "z", Version: "v"}
		if _, err := beats.Put(ctx, beatKey(name), b.Append(nil), bus.Any); err != nil && ctx.Err() == nil {
			t.Error(err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
}

func bucketOf(t *testing.T) bus.Bucket {
	t.Helper()
	beats, err := mem.New().Bucket(t.Context(), bus.BucketConfig{Name: "beats"})
	if err != nil {
		t.Fatal(err)
	}
	return beats
}

// start runs the Members of a broker until stop is called.
func start(t *testing.T, c Config) (m *Members, stop func()) {
	t.Helper()
	m, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	return m, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestMembers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "members")
	synctest.Test(t, func(t *testing.T) {
		beats := bucketOf(t)
		var wg sync.WaitGroup
		defer wg.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		die := map[string]context.CancelFunc{}
		for _, name := range []string{"a", "b", "c"} {
			life, end := context.WithCancel(ctx)
			die[name] = end
			wg.Go(func() { beating(life, t, beats, name) })
		}
		defer die["a"]()
		o := &observed{}
		tries := 0
		open := func(context.Context) (bus.Bucket, error) {
			if tries++; tries < 3 { // the bus is away at first
				return nil, errs.New(errs.Unavailable, "no bus")
			}
			return beats, nil
		}
		m, stop := start(t, Config{Self: "a", File: file, Events: o.events(), Beats: open})
		both := map[string]string{"b": "b:1", "c": "c:1"}
		o.want(t, "before", map[string]string{}, map[string]string{})
		if o.toldTimes() != 0 {
			t.Error("told who the members are before the bus was there")
		}
		time.Sleep(4 * time.Second)
		o.want(t, "all there", both, map[string]string{"a": "alive", "b": "alive", "c": "alive"})
		if s := m.Snapshot(); !s.BusUp || len(s.Members) != 3 || s.Members[1].Links != "b:2" || s.Members[1].Zone != "z" || s.Members[1].Version != "v" {
			t.Errorf("%+v", s)
		}

		if n := o.toldTimes(); n != 1 {
			t.Errorf("told %d times that all members are told", n)
		}
		m.Linked("b", true)
		die["b"]()
		die["c"]()
		time.Sleep(3500 * time.Millisecond)
		o.want(t, "b has a link, c has none", both, map[string]string{"a": "alive", "b": "alive", "c": "suspected"})
		m.Linked("b", false)
		time.Sleep(11 * time.Second)
		o.want(t, "both dead", both, map[string]string{"a": "alive", "b": "down", "c": "down"})

		if err := Leave(ctx, beats, "c"); err != nil {
			t.Fatal(err)
		}
		o.want(t, "c forced out", map[string]string{"b": "b:1"}, map[string]string{"a": "alive", "b": "down", "c": "down"}, "c")
		time.Sleep(2 * saveEvery)
		stop()

		// Once more, with the bus away: who is known is dialed, and nobody heard of.
		o = &observed{}
		m, stop = start(t, Config{Self: "a", File: file, Events: o.events(), Beats: func(context.Context) (bus.Bucket, error) {
			return nil, errs.New(errs.Unavailable, "no bus")
		}})
		o.want(t, "started without the bus", map[string]string{"b": "b:1"}, map[string]string{})
		if s := m.Snapshot(); s.BusUp || len(s.Members) != 1 || s.Members[0].Links != "b:2" || s.Members[0].State != Suspected {
			t.Errorf("%+v", s)
		}
		m.Linked("b", true)
		o.want(t, "b is there", map[string]string{"b": "b:1"}, map[string]string{"b": "alive"})
		stop()

		// And with c coming back as if nothing had happened, while it was removed.
		life, end := context.WithCancel(ctx)
		defer end()
		wg.Go(func() { beating(life, t, beats, "c") })
		o = &observed{}
		_, stop = start(t, Config{Self: "a", File: file, Events: o.events(), Beats: open})
		time.Sleep(3 * time.Second)
		o.want(t, "c beats on", map[string]string{"b": "b:1"}, map[string]string{"a": "alive"})
		own := &observed{}
		_, stopC := start(t, Config{Self: "c", File: file + ".c", Events: own.events(), Beats: open})
		synctest.Wait()
		if own.retired != 1 {
			t.Errorf("c was told %d times that it was removed", own.retired)
		}
		stopC()
		grave, err := Left(ctx, beats, "c")
		if err != nil || grave == nil || grave.Count == 0 || grave.At.IsZero() {
			t.Fatalf("tombstone %+v, %v", grave, err)
		}
		if err := Return(ctx, beats, grave); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		o.want(t, "c has returned", both, map[string]string{"a": "alive", "c": "alive"})
		stop()
		end()
		cancel()
	})
}

func TestLeave(t *testing.T) {
	ctx, beats := t.Context(), bucketOf(t)
	if err := Leave(ctx, beats, "nobody"); !errs.Is(err, errs.NotFound) {
		t.Errorf("a broker that never was: %v, want NotFound", err)
	}
	if grave, err := Left(ctx, beats, "nobody"); grave != nil || err != nil {
		t.Errorf("tombstone %+v, %v", grave, err)
	}
	join := func() {
		t.Helper()
		b := placement.Beat{Count: 42}
		if _, err := beats.Put(ctx, beatKey("b"), b.Append(nil), bus.Any); err != nil {
			t.Fatal(err)
		}
	}
	join()
	for range 2 { // again is no error
		if err := Leave(ctx, beats, "b"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := beats.Get(ctx, beatKey("b")); !errs.Is(err, errs.NotFound) {
		t.Errorf("the heartbeat of who left: %v", err)
	}
	first, err := Left(ctx, beats, "b")
	if err != nil || first == nil || first.Count != 42 {
		t.Fatalf("tombstone %+v, %v", first, err)
	}
	join()
	if err := Leave(ctx, beats, "b"); err != nil {
		t.Fatal(err)
	}
	if err := Return(ctx, beats, first); !errs.Is(err, errs.Conflict) {
		t.Errorf("it was forced out again meanwhile: %v, want Conflict", err)
	}
	second, err := Left(ctx, beats, "b")
	if err != nil || second == nil {
		t.Fatalf("tombstone %+v, %v", second, err)
	}
	if err := Return(ctx, beats, second); err != nil {
		t.Error(err)
	}
	if grave, err := Left(ctx, beats, "b"); grave != nil || err != nil {
		t.Errorf("tombstone %+v, %v", grave, err)
	}
}

func TestFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "members")
	if got, err := readFile(file); got != nil || err != nil {
		t.Errorf("no file: %v %v", got, err)
	}
	want := []Member{{Name: "b", Cluster: "b:1", Links: "b:2", Zone: "z", Version: "1.2"}, {Name: "ü \"x\"", Cluster: "[::1]:1"}}
	for range 2 { // also over what is there
		if err := writeFile(file, "a", append([]Member{{Name: "a", State: Alive}}, want...)); err != nil {
			t.Fatal(err)
		}
	}
	got, err := readFile(file)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v %v", entries, err)
	}
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	broken := func(what string, text []byte) {
		t.Helper()
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := readFile(file); !errors.Is(err, errDamaged) || got != nil {
			t.Fatalf("%s: %v, %v", what, got, err)
		}
	}
	for n := range good {
		broken("cut", good[:n])
		flipped := slices.Clone(good)
		flipped[n] ^= 0x10
		broken("flipped", flipped)
	}
	if !strings.HasPrefix(string(good), "manor members 1 ") {
		t.Errorf("the file begins with %.20q", good)
	}
	// A damaged file is as none; the broker starts.
	m, err := Open(Config{Self: "a", File: file})
	if err != nil || len(m.Snapshot().Members) != 0 {
		t.Errorf("%v", err)
	}
	if _, err := Open(Config{Self: "a", File: dir}); err == nil || errors.Is(err, os.ErrNotExist) {
		t.Errorf("a folder as file: %v", err)
	}
}

// Keys of the bucket that are no heartbeats, and values that are not readable, are
// passed over.
func TestMembers_Strangers(t *testing.T) {
	m, err := Open(Config{Self: "a", File: filepath.Join(t.TempDir(), "members")})
	if err != nil {
		t.Fatal(err)
	}
	good := placement.Beat{Count: 1, Cluster: "b:1"}
	for key, value := range map[string][]byte{
		beatKey("b"): good.Append(nil), beatKey("c"): {9}, "a.b": good.Append(nil), "_": good.Append(nil), beatKey("\xff"): good.Append(nil),
	} {
		m.update(bus.Update{Entry: bus.Entry{Key: key, Value: value}})
	}
	m.step()
	names := map[string]bool{}
	for _, k := range m.Snapshot().Members {
		names[k.Name] = true
	}
	if !maps.Equal(names, map[string]bool{"b": true}) {
		t.Errorf("members %v", names)
	}
}
