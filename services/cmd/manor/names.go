// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/node"
	"github.com/manormq/manor/tenancy"
)

// certificates is the part that makes a certificate for every tenant, as soon as
// it appears. Gateways find the file at the next handshake.
func certificates(a *authority, open func(context.Context) (bus.Bucket, error), log *slog.Logger) node.Part {
	return node.Part{Name: "certificates", Run: func(ctx context.Context) error {
		made := map[string]bool{}
		for ctx.Err() == nil {
			bucket, err := open(ctx)
			if err == nil {
				err = bucket.Watch(ctx, bus.Watch{}, func(u bus.Update) {
					tenant := u.Entry.Key
					if u.Synced || u.Deleted || made[tenant] || tenancy.ValidTenantID(tenant) != nil {
						return
					}
					if err := a.host(tenant); err != nil {
						log.Error("the certificate of a tenant cannot be written", "tenant", tenant, "error", err)
						return
					}
					made[tenant] = true
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
