// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/manormq/manor/infra/bus/embed"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/authn/password"
	"github.com/manormq/manor/tenancy/store"
)

// What manor dev calls its region, its NATS server, and what its tenants' host names are
// below.
const (
	devRegion = "local"
	devNATS   = "nats-1"
	devDomain = "localhost"
)

// makeTenants writes n tenants without limits, with a credential each, into the
// data folder of a manor dev that does not run yet, and returns a file with the
// credentials. The API's sign-up would spend 30 ms on each, on the password of a
// person.
func makeTenants(ctx context.Context, dir string, n int) (file string, err error) {
	log := slog.New(slog.DiscardHandler)
	server, err := embed.Start(ctx, embed.Config{Dir: filepath.Join(dir, devNATS), Name: devNATS, Log: log, NoSync: true})
	if err != nil {
		return "", err
	}
	defer server.Shutdown()
	control, err := server.Bus("bench")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, control.Close()) }()
	records, err := store.New(ctx, store.Config{Bus: control, Log: log, Region: devRegion})
	if err != nil {
		return "", err
	}
	logins := make([]login, n)
	err = each(16, n, func(i int) error {
		secret, hash, err := password.Generate()
		if err != nil {
			return err
		}
		tenant := fmt.Sprintf("bench-%d", i)
		logins[i] = login{tenant + ":client", secret}
		_, err = records.SignUp(ctx, store.SignUp{
			Organization: tenant, Email: "bench@bench.example", Tenant: tenant, Plan: tenancy.PlanNone,
			Username: "client", CredentialHash: hash,
		})
		return err
	})
	if err != nil {
		return "", fmt.Errorf("make tenants: %w", err)
	}
	file = filepath.Join(dir, "logins.txt")
	return file, writeLogins(file, logins)
}
