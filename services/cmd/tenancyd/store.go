// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy/store"
)

// storeTimeout is how long NATS may be away when tenancyd starts.
const storeTimeout = 30 * time.Second

// openStore opens the store, and waits for the bus to be there.
func openStore(ctx context.Context, cfg store.Config) (*store.Store, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	for {
		s, err := store.New(ctx, cfg)
		if err == nil || !errs.Is(err, errs.Unavailable) || ctx.Err() != nil {
			return s, err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}
