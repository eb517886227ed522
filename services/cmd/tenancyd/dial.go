// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/manormq/manor/infra/link"
)

// dialTimeout is how long one broker may take to answer before the next is tried.
const dialTimeout = 3 * time.Second

// dialer opens a link to the first of several brokers that answers. It begins with the
// one that did last.
type dialer struct {
	addresses []string
	one       func(ctx context.Context, address string, gw link.Gateway) (link.Broker, error)

	next atomic.Uint32 // in addresses
}

// dial tries each address once. It may be called concurrently. The error names all
// that did not answer.
func (d *dialer) dial(ctx context.Context, gw link.Gateway) (link.Broker, error) {
	var all []error
	begin := d.next.Load()
	for i := range uint32(len(d.addresses)) {
		at := (begin + i) % uint32(len(d.addresses))
		limited, cancel := context.WithTimeout(ctx, dialTimeout)
		b, err := d.one(limited, d.addresses[at], gw)
		cancel()
		if err == nil {
			d.next.Store(at)
			return b, nil
		}
		all = append(all, fmt.Errorf("broker at %s: %w", d.addresses[at], err))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(all...)
}

// elsewhere has the next dial begin with another broker than the last.
func (d *dialer) elsewhere() { d.next.Add(1) }

// all are the addresses of the brokers, at least one in a configuration that is valid.
func (c *brokerConfig) all() []string {
	if len(c.Addresses) == 0 {
		return []string{c.Address}
	}
	return c.Addresses
}
