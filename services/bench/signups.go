// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

// signUpsAtOnce are few: the API hashes a password for each, on one processor.
const signUpsAtOnce = 4

// signUps makes n tenants at the API of a Manor, for the clients to take in turn.
func signUps(ctx context.Context, api string, n int) ([]login, error) {
	tenants, err := signUpTenants(ctx, api, n)
	if err != nil {
		return nil, err
	}
	logins := make([]login, n)
	for i, t := range tenants {
		logins[i] = t.login
	}
	return logins, nil
}

// signUpTenants is signUps, and keeps who may change the tenants.
func signUpTenants(ctx context.Context, api string, n int) ([]*siteTenant, error) {
	prefix := fmt.Sprintf("bench-%x", time.Now().UnixNano())
	tenants := make([]*siteTenant, n)
	all, ctx := errgroup.WithContext(ctx)
	all.SetLimit(signUpsAtOnce)
	for i := range n {
		all.Go(func() (err error) {
			tenants[i], err = signUp(ctx, api, fmt.Sprintf("%s-%d", prefix, i))
			return err
		})
	}
	return tenants, all.Wait()
}
