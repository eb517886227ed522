// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/bus/nats"
)

// partitions is how many a region has.
const partitions = 64

// get asks the operator's listener.
func (n *Node) get(ctx context.Context, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.Addr("operator")+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s%s: %s: %s", n.Name, path, resp.Status, body)
	}
	return body, err
}

// Bus is a connection to a NATS server, which the caller closes.
func (n *Node) Bus() (*nats.Bus, error) {
	token, err := os.ReadFile(filepath.Join(filepath.Dir(n.Data), "pki", "nats.token"))
	if err != nil {
		return nil, err
	}
	return nats.Connect(nats.Config{
		URLs: []string{"nats://" + n.Addr("nats")}, Name: "chaos", Token: strings.TrimSpace(string(token)), Log: slog.New(slog.DiscardHandler),
	})
}

// elected reports whether a NATS server, with the others, can make buckets.
func (n *Node) elected(ctx context.Context) error {
	b, err := n.Bus()
	if err != nil {
		return err
	}
	defer func() { _ = b.Close() }()
	if err := b.Ready(ctx); err != nil {
		return err
	}
	// A stream has a leader of its own, which another damage needs to be there: NATS
	// takes 4 to 9 s to elect one, in which no partition can have another owner.
	table, err := b.Bucket(ctx, bus.BucketConfig{Name: "partitions"})
	if err != nil {
		return err
	}
	_, err = table.Put(ctx, "chaos", []byte("1"), bus.Any)
	return err
}

// states counts the partitions of a broker by what they are to it.
func (n *Node) states(ctx context.Context) (map[string]int, error) {
	text, err := n.get(ctx, "/metrics")
	if err != nil {
		return nil, err
	}
	states := make(map[string]int)
	s := bufio.NewScanner(bytes.NewReader(text))
	for s.Scan() {
		rest, ok := strings.CutPrefix(s.Text(), `mqtt_broker_partitions{state="`)
		if !ok {
			continue
		}
		state, count, _ := strings.Cut(rest, `"} `)
		if states[state], err = strconv.Atoi(count); err != nil {
			return nil, err
		}
	}
	return states, s.Err()
}

// served counts the partitions that the running brokers serve, and those of them
// that are in sync.
func (r *Region) served(ctx context.Context) (serving, inSync int, err error) {
	for _, n := range r.Of("broker") {
		s, serr := n.states(ctx)
		if serr != nil {
			err = serr
		}
		serving += s["serving"]
		inSync += s["in_sync"]
	}
	return serving, inSync, err
}

// Settled waits until every partition is served with all of its replicas, so
// that the next loss of a broker costs nothing, and returns how long that took.
func (r *Region) Settled(limit time.Duration) time.Duration {
	r.t.Helper()
	begun := time.Now()
	ctx, cancel := context.WithTimeout(r.t.Context(), limit)
	defer cancel()
	err := poll(ctx, func() error {
		serving, inSync, err := r.served(ctx)
		if err == nil && (serving != partitions || inSync != partitions) {
			err = fmt.Errorf("%d of %d partitions are served, %d in sync", serving, partitions, inSync)
		}
		return err
	})
	if err != nil {
		r.t.Errorf("the region did not settle in %v: %v", limit, err)
	}
	return time.Since(begun)
}
