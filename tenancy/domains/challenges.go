// SPDX-License-Identifier: Apache-2.0

package domains

import (
	"bytes"
	"context"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/domains/acme"
	"github.com/manormq/manor/tenancy/store"
)

// Challenges has gateways answer a CA's challenges: it puts them into tenancy.HostsBucket.
// It is safe for concurrent use.
type Challenges struct{ Store *store.Store }

var _ acme.Challenges = Challenges{}

// Present implements acme.Challenges.
func (c Challenges) Present(ctx context.Context, fqdn string, digest [32]byte) error {
	return c.set(ctx, fqdn, func(h *tenancy.Host) { h.Challenge = digest[:] })
}

// CleanUp implements acme.Challenges. What another order shows meanwhile stays.
func (c Challenges) CleanUp(ctx context.Context, fqdn string, digest [32]byte) error {
	err := c.set(ctx, fqdn, func(h *tenancy.Host) {
		if bytes.Equal(h.Challenge, digest[:]) {
			h.Challenge = nil
		}
	})
	if errs.Is(err, errs.NotFound) { // deleted meanwhile
		return nil
	}
	return err
}

func (c Challenges) set(ctx context.Context, fqdn string, change func(*tenancy.Host)) error {
	h, err := c.Store.Host(ctx, fqdn)
	if err != nil {
		return err
	}
	return c.Store.ChangeHost(ctx, h.Tenant, fqdn, change)
}
