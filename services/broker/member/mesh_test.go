// SPDX-License-Identifier: Apache-2.0

package member_test

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/bus/mem"
	"github.com/manormq/manor/services/broker/cluster"
	"github.com/manormq/manor/services/broker/member"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/placement"
)

// broker is a Mesh that has its peers from Members, and tells them of its links.
type broker struct {
	name    string
	members *member.Members
	stop    func()
}

type receiver struct{ linked func(name string, up bool) }

func (receiver) Enqueue(_ string, _ *cluster.Enqueue, answer func(cluster.Answer)) {
	if answer != nil {
		answer(cluster.Answer{})
	}
}
func (receiver) Told(string, cluster.Stream, []byte) {}
func (r receiver) Linked(to string, up bool)         { r.linked(to, up) }
func (receiver) Asked(string, []byte, func([]byte))  {}
func (receiver) Batched(string)                      {}

func run(t *testing.T, dir, name string, beats bus.Bucket) *broker {
	t.Helper()
	b := &broker{name: name}
	mesh := cluster.New(cluster.Config{Node: name, Receiver: receiver{func(to string, up bool) { b.members.Linked(to, up) }}})
	var err error
	b.members, err = member.Open(member.Config{
		Self: name, File: filepath.Join(dir, name), Events: member.Events{Peers: mesh.SetPeers},
		Beats: func(context.Context) (bus.Bucket, error) { return beats, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = mesh.Run(ctx, ln) })
	wg.Go(func() { _ = b.members.Run(ctx) })
	wg.Go(func() {
		beat := placement.Beat{Count: uint64(time.Now().UnixNano()), Cluster: ln.Addr().String()}
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			beat.Count++
			_, _ = beats.Put(ctx, placement.BeatKey(partition.Broker(name)), beat.Append(nil), bus.Any) // the bus may be away
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
	b.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(b.stop)
	return b
}

// sees waits until b sees the bus and the others so.
func (b *broker) sees(t *testing.T, busUp bool, want string) {
	t.Helper()
	var got string
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		got = ""
		s := b.members.Snapshot()
		for _, m := range s.Members {
			if m.Name != b.name {
				got += fmt.Sprintf("%s %s ", m.Name, m.State)
			}
		}
		if got == want && s.BusUp == busUp {
			return
		}
	}
	t.Fatalf("%s sees %q, want %q, and the bus %v", b.name, got, want, busUp)
}

// Brokers find each other by their heartbeats, keep their links while the bus is away
// and judge by them alone; one that is started anew, at another port, with the bus still
// away, finds the others by its file, and they find it when the bus is back.
func TestMembers_Mesh(t *testing.T) {
	t.Parallel()
	dir, m := t.TempDir(), mem.New()
	beats, err := m.Bucket(t.Context(), bus.BucketConfig{Name: "beats"})
	if err != nil {
		t.Fatal(err)
	}
	a, b, c := run(t, dir, "a", beats), run(t, dir, "b", beats), run(t, dir, "c", beats)
	a.sees(t, true, "b alive c alive ")
	b.sees(t, true, "a alive c alive ")
	c.sees(t, true, "a alive b alive ")

	m.SetDown(true)
	a.sees(t, false, "b alive c alive ")
	c.stop()
	a.sees(t, false, "b alive c suspected ")
	b.sees(t, false, "a alive c suspected ")

	c = run(t, dir, "c", beats)
	c.sees(t, false, "a alive b alive ")
	m.SetDown(false)
	a.sees(t, true, "b alive c alive ")
	b.sees(t, true, "a alive c alive ")
}
