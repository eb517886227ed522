// SPDX-License-Identifier: Apache-2.0

package nats

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/manormq/manor/infra/bus"
)

// lastAtOnce is how many questions about what is newest a leader is asked at once.
const lastAtOnce = 16

// Entries implements bus.Bucket: it is a watch of all prefixes that ends when it has told
// what is there. A server looks for what matches any of them in one pass over its log,
// which for one prefix alone it reads by blocks, one for each entry in the worst case.
func (b *bucket) Entries(ctx context.Context, prefixes []string, limit int) ([]bus.Entry, bool, error) {
	if err := bus.CheckPrefixes(prefixes); err != nil {
		return nil, false, err
	}
	ctx, cancel, err := b.bus.call(ctx)
	if err != nil {
		return nil, false, err
	}
	defer cancel()
	due, err := b.lastOf(ctx, prefixes)
	if err != nil {
		return nil, false, mapError(err, "list")
	}
	filters := make([]string, len(prefixes))
	for i, p := range prefixes {
		filters[i] = p + ">"
	}
	w, err := b.kv.WatchFiltered(ctx, filters)
	if err != nil {
		return nil, false, mapError(err, "list")
	}
	defer func() {
		go func() { _ = w.Stop() }() // as watchOnce does
		go drain(w.Updates())        // or what is on its way would wait for ever
	}()
	entries, more, err := collect(ctx, w.Updates(), due, limit)
	if err != nil {
		return nil, false, mapError(err, "list")
	}
	return entries, more, nil
}

func drain(updates <-chan jetstream.KeyValueEntry) {
	for range updates {
	}
}

// collect reads a watch up to the end of what was there, which is not before the revision
// due.
func collect(ctx context.Context, updates <-chan jetstream.KeyValueEntry, due uint64, limit int) (entries []bus.Entry, more bool, err error) {
	there, last, reached := map[string]bus.Entry{}, uint64(0), false
	for !reached || last < due {
		select {
		case e, ok := <-updates:
			switch {
			case !ok:
				return nil, false, errors.New("the watch was closed")
			case e == nil:
				reached = true
				continue
			case e.Operation() != jetstream.KeyValuePut:
				delete(there, e.Key())
			default:
				there[e.Key()] = entry(e)
			}
			// Before due an entry may be one that was deleted since: none is handed out.
			if last = max(last, e.Revision()); len(there) > limit && last >= due {
				return slices.Collect(maps.Values(there))[:limit], true, nil
			}
		case <-ctx.Done():
			return nil, false, ctx.Err()
		}
	}
	return slices.Collect(maps.Values(there)), false, nil
}

// lastOf is the newest revision of what begins with any of the prefixes; see last.
func (b *bucket) lastOf(ctx context.Context, prefixes []string) (newest uint64, err error) {
	if !b.replicated {
		return 0, nil
	}
	var mu sync.Mutex // guards newest
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(lastAtOnce)
	for _, p := range prefixes {
		g.Go(func() error {
			n, err := b.last(ctx, p)
			mu.Lock()
			defer mu.Unlock()
			newest = max(newest, n)
			return err
		})
	}
	return newest, g.Wait()
}
