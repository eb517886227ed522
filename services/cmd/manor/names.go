// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/node"
	"github.com/manormq/manor/tenancy"
)

// maxNames is how many tenants the listeners' certificate names. The wildcard
// serves the rest, for clients that believe it.
const maxNames = 500

// certificates is the part that keeps the listeners' certificate good for every
// tenant: when one signs up, the file is written again, and gateways read it.
func certificates(a *authority, open func(context.Context) (bus.Bucket, error), log *slog.Logger) node.Part {
	return node.Part{Name: "certificates", Run: func(ctx context.Context) error {
		var tenants []string
		synced := false
		reissue := func() {
			if _, _, err := a.listeners(tenants); err != nil {
				log.Error("the listeners' certificate cannot be written", "error", err)
			}
		}
		for ctx.Err() == nil {
			bucket, err := open(ctx)
			if err == nil {
				err = bucket.Watch(ctx, bus.Watch{}, func(u bus.Update) {
					switch at, known := slices.BinarySearch(tenants, u.Entry.Key); {
					case u.Synced:
						synced = true
						reissue()
					case u.Deleted || known || len(tenants) >= maxNames:
					default:
						tenants = slices.Insert(tenants, at, u.Entry.Key)
						if synced {
							reissue()
						}
					}
				})
			}
			if err != nil && ctx.Err() == nil {
				log.Debug("tenants are not known yet", "error", err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
		return nil
	}}
}

// tenantsBucket opens the bucket whose keys are the tenants.
func tenantsBucket(b bus.Bus) func(context.Context) (bus.Bucket, error) {
	return func(ctx context.Context) (bus.Bucket, error) {
		return b.Bucket(ctx, bus.BucketConfig{Name: tenancy.TenantsBucket})
	}
}
