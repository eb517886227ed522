// SPDX-License-Identifier: Apache-2.0

package mem

import (
	"context"
	"slices"
	"strings"

	"github.com/manormq/manor/infra/bus"
)

// Entries implements bus.Bucket.
func (b *bucket) Entries(ctx context.Context, prefixes []string, limit int) (entries []bus.Entry, more bool, err error) {
	if err := bus.CheckPrefixes(prefixes); err != nil {
		return nil, false, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.check(ctx, "x"); err != nil {
		return nil, false, err
	}
	for key := range b.entries {
		r, ok := b.find(key)
		switch {
		case !ok || !slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(key, p) }):
		case len(entries) == limit:
			return entries, true, nil
		default:
			entries = append(entries, r.Entry)
		}
	}
	return entries, false, nil
}
