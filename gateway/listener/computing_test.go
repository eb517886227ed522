// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/manormq/manor/infra/loop"
)

// The tenants whose handshakes wait have turns one after the other, however many
// each has; who gives up, or whose handshake is over, keeps none.
func TestComputing(t *testing.T) {
	c := NewComputing(1)
	first, end := context.WithCancel(context.Background())
	if err := c.begin(first, nil, "loud", time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := c.begin(context.Background(), nil, "loud", time.Millisecond); !errors.Is(err, errComputing) {
		t.Errorf("%v, expected errComputing", err)
	}
	gone, leave := context.WithCancel(context.Background())
	leave()
	if err := c.begin(gone, nil, "loud", time.Minute); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, expected that it was given up", err)
	}
	var (
		mu    sync.Mutex
		order []string
		wg    sync.WaitGroup
	)
	wait := func(tenant string, waiting int) {
		wg.Go(func() {
			ctx, end := context.WithCancel(context.Background())
			defer end()
			if err := c.begin(ctx, nil, tenant, time.Minute); err != nil {
				t.Error(err)
			}
			mu.Lock()
			order = append(order, tenant)
			mu.Unlock()
		})
		for end := time.Now().Add(10 * time.Second); c.waits() < waiting; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d wait, expected %d", c.waits(), waiting)
			}
		}
	}
	before := c.waits() // who has given up is still in the queue
	for i := range 20 {
		wait("loud", before+i+1)
	}
	wait("quiet", before+21)
	end()
	wg.Wait()
	if at := slices.Index(order, "quiet"); at < 0 || at > 2 {
		t.Errorf("%v, expected the quiet one among the first", order)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		c.mu.Lock()
		free, flows := c.free, len(c.flows)
		c.mu.Unlock()
		if free == 1 && flows == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d turns are free, %d tenants are remembered; expected 1 and none", free, flows)
		}
	}
}

func (c *Computing) waits() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.queue.Len()
}

// The turn ends when the answer is about to be written, not when it is: the client
// may take nothing.
func TestComputing_EndsBeforeTheWrite(t *testing.T) {
	c := NewComputing(1)
	a, b := net.Pipe() // a write waits until it is read
	defer func() { _, _ = a.Close(), b.Close() }()
	s := loop.NewSocket(a, nil)
	if err := c.begin(context.Background(), s, "t", time.Minute); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = s.Write([]byte("hello")) }()
	if err := c.begin(context.Background(), nil, "t", time.Minute); err != nil {
		t.Error(err)
	}
}
