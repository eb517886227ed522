// SPDX-License-Identifier: Apache-2.0

// Command tenancyd serves the public API and the console: sign-up, tenants,
// credentials, quotas, and the way to the brokers for people.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/node"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/infra/wire"
	"github.com/manormq/manor/services/api"
	"github.com/manormq/manor/services/api/dataplane"
	"github.com/manormq/manor/tenancy/audit"
	"github.com/manormq/manor/tenancy/authn/password"
	"github.com/manormq/manor/tenancy/cells"
	"github.com/manormq/manor/tenancy/decide"
	"github.com/manormq/manor/tenancy/domains"
	"github.com/manormq/manor/tenancy/events"
	"github.com/manormq/manor/tenancy/jwks"
	"github.com/manormq/manor/tenancy/managedca"
	"github.com/manormq/manor/tenancy/policy"
	"github.com/manormq/manor/tenancy/purge"
	"github.com/manormq/manor/tenancy/quota/usage"
	"github.com/manormq/manor/tenancy/sources"
	"github.com/manormq/manor/tenancy/store"
)

func main() {
	c := defaults()
	cmd := node.Command(node.Role{
		Name: "tenancyd", Short: "run the public API: sign-up, tenants, credentials and quotas",
		Config: c, Common: &c.Config,
		Run: func(ctx context.Context, log *slog.Logger) error { return run(ctx, c, log) },
	})
	if err := cmd.ExecuteContext(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "tenancyd:", err)
		os.Exit(node.ExitCode(err))
	}
}

func run(ctx context.Context, c *config, log *slog.Logger) error {
	serving, err := c.TLS.load()
	if err != nil {
		return err
	}
	mutual, err := wire.TLS(c.Broker.Cert, c.Broker.Key, c.Broker.CA)
	if err != nil {
		return err
	}
	control, err := c.NATS.Connect(c.NodeName(), log)
	if err != nil {
		return err
	}
	defer func() { _ = control.Close() }()
	reg := telemetry.NewRegistry("tenancy", node.Version())
	installed, err := decide.OpenInstallation(ctx, decide.InstallationConfig{Dir: c.PolicyDir, Log: log, Registerer: reg})
	if err != nil {
		return err
	}
	keep := store.Config{Bus: control, Log: log, Region: c.Region, Limiter: installed.Limiter()}
	if c.Domains.KeyFile != "" {
		// Gateways have this key, and no other that tenancyd has too.
		if keep.Tickets, err = managedca.LoadSealer(c.Domains.KeyFile); err != nil {
			return errs.New(errs.Invalid, "domains.key_file: %w", err)
		}
	}
	records, err := openStore(ctx, keep)
	if err != nil {
		return err
	}
	verifier, err := password.NewVerifier(0)
	if err != nil {
		return err
	}
	brokers := &dialer{addresses: c.Broker.all(), one: func(ctx context.Context, address string, gw link.Gateway) (link.Broker, error) {
		return link.Dial(ctx, address, mutual, c.NodeName(), gw)
	}}
	plane, err := dataplane.New(dataplane.Config{Name: c.NodeName(), Log: log, Dial: brokers.dial, Elsewhere: brokers.elsewhere})
	if err != nil {
		return err
	}
	rules, err := policy.New(ctx)
	if err != nil {
		return err
	}
	changes, err := audit.Open(ctx, audit.Config{Bus: control, Log: log, Days: records.AuditDays})
	if err != nil {
		return err
	}
	fetcher, err := jwks.New(jwks.Config{Store: records, Networks: c.JWKSNetworks, Log: log})
	if err != nil {
		return err
	}
	var sealer *managedca.Sealer
	if c.SecretsKeyFile != "" {
		if sealer, err = managedca.LoadSealer(c.SecretsKeyFile); err != nil {
			return errs.New(errs.Invalid, "secrets_key_file: %w", err)
		}
	}
	mailer, err := c.mailer()
	if err != nil {
		return err
	}
	policies, err := decide.New(decide.Config{Store: records, Log: log, Registerer: reg})
	if err != nil {
		return err
	}
	used := usage.New(control)
	openEvents := func(ctx context.Context) (bus.Stream, error) { return events.Open(ctx, control) }
	history, happened := events.NewLog(openEvents), events.NewWriter(openEvents, log)
	custom, end, err := domains.Open(ctx, c.Domains, sealer, domains.Config{Store: records, Domain: c.Domain, Log: log, Registerer: reg})
	if err != nil {
		return err
	}
	defer end()
	fromFiles, err := sources.New(ctx, sources.Config{
		Dir: c.SourcesDir, Store: records, Policies: policies, Hasher: verifier, Audit: changes, Happened: happened.Add, Log: log, Registerer: reg,
	})
	if err != nil {
		return err
	}
	public, err := api.New(api.Config{
		Store: records, Policies: policies, Hasher: verifier, Data: plane, RBAC: rules, Audit: changes, Domains: custom, Sources: fromFiles, Sealer: sealer, Mailer: mailer, Rates: c.Rates, TrustedProxies: c.Proxies,
		Events: history, Happened: happened.Add, Used: used, Admission: installed, Bus: control,
		Domain: c.Domain, Endpoints: c.Endpoints, DefaultPlan: c.DefaultPlan, Plans: c.Plans, OverridesBeyondPlan: c.BeyondPlan, DeletionGrace: c.DeletionGrace, Listen: c.Listen, TLS: serving, Log: log, Registerer: reg,
	})
	if err != nil {
		return err
	}
	growing, err := cells.New(ctx, cells.Config{Store: records, Brokers: plane, Log: log, Registerer: reg})
	if err != nil {
		return err
	}
	purging, err := purge.New(ctx, purge.Config{Store: records, Brokers: plane, Domains: custom, Events: history, Audit: changes, Log: log, Registerer: reg})
	if err != nil {
		return err
	}
	health := &node.Health{}
	health.Register("bus", control.Check)
	health.Register("link", plane.Check)
	operator := node.NewOperator(c.Operator, c.NodeName(), "tenancy", log, reg, health)
	operator.Mount(api.OperatorPrefix, public.Operator())
	return node.Run(ctx, node.Options{Log: log, DrainTimeout: c.DrainTimeout},
		operator.Part(), node.Part{Name: "link", Run: plane.Run}, node.Part{Name: "sign-ups", Run: records.RunReaper},
		node.Part{Name: "tickets", Run: records.RunTickets}, node.Part{Name: "bans", Run: records.RunBans}, node.Part{Name: "token keys", Run: fetcher.Run}, node.Part{Name: "audit", Run: changes.Run},
		node.Part{Name: "old events", Run: func(ctx context.Context) error { return history.Run(ctx, records.EventDays, log) }},
		node.Part{Name: "events", Run: happened.Run}, node.Part{Name: "policies", Run: policies.Run},
		node.Part{Name: "installation's policy", Run: func(ctx context.Context) error { return installed.Run(ctx, records) }}, node.Part{Name: "usage", Run: used.Run}, node.Part{Name: "domains", Run: custom.Run}, node.Part{Name: "sources", Run: fromFiles.Run},
		node.Part{Name: "cells", Run: growing.Run}, node.Part{Name: "purges", Run: purging.Run}, public.Part())
}
