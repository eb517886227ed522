// SPDX-License-Identifier: Apache-2.0

// Package apitest makes the API for tests, on a bus in memory. It owns no
// goroutine.
package apitest

import (
	"context"
	"crypto/x509"
	"sync"
	"testing"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/bus/mem"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/services/api"
	"github.com/manormq/manor/services/api/dataplane"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/audit"
	"github.com/manormq/manor/tenancy/authn/password"
	"github.com/manormq/manor/tenancy/decide"
	"github.com/manormq/manor/tenancy/domains"
	"github.com/manormq/manor/tenancy/domains/acme"
	"github.com/manormq/manor/tenancy/domains/domainstest"
	"github.com/manormq/manor/tenancy/events"
	"github.com/manormq/manor/tenancy/managedca"
	"github.com/manormq/manor/tenancy/policy"
	"github.com/manormq/manor/tenancy/sources"
	"github.com/manormq/manor/tenancy/store"
)

// What takes long to make and remembers nothing of a test.
var (
	verifier = sync.OnceValues(func() (*password.Verifier, error) { return password.NewVerifier(0) })
	rules    = sync.OnceValues(func() (*policy.RBAC, error) { return policy.New(context.Background()) })
)

// Verifier returns the one that every API of this process has.
func Verifier(t testing.TB) *password.Verifier {
	t.Helper()
	v, err := verifier()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// New returns an API in the region local, whose plan is dev, with its
// configuration, which the functions may change before. Its bus is a *mem.Bus.
func New(t testing.TB, with ...func(*api.Config)) (*api.Server, api.Config) {
	s, cfg, _ := WithDNS(t, with...)
	return s, cfg
}

// WithDNS is New, and returns the DNS server that is asked about domains too.
func WithDNS(t testing.TB, with ...func(*api.Config)) (*api.Server, api.Config, *domainstest.DNS) {
	t.Helper()
	names := domainstest.NewDNS(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	b := mem.New()
	records, err := store.New(t.Context(), store.Config{Bus: b, Log: telemetry.Discard(), Region: "local"})
	must(err)
	rules, err := rules()
	must(err)
	changes, err := audit.Open(t.Context(), audit.Config{Bus: b, Log: telemetry.Discard(), Days: records.AuditDays})
	must(err)
	sealer, err := managedca.NewSealer(make([]byte, 32))
	must(err)
	policies, err := decide.New(decide.Config{Store: records, Log: telemetry.Discard()})
	must(err)
	fromFiles, err := sources.New(t.Context(), sources.Config{Store: records, Policies: policies, Hasher: Verifier(t), Audit: changes, Log: telemetry.Discard()})
	must(err)
	custom, err := domains.New(t.Context(), domains.Config{
		Store: records, Sealer: sealer, Authority: closed{}, Resolver: names.Address, Domain: "localhost", Log: telemetry.Discard(),
	})
	must(err)
	cfg := api.Config{
		Policies: policies, Domains: custom, Sealer: sealer, Sources: fromFiles,
		Store: records, Hasher: Verifier(t), Data: silent{}, RBAC: rules, Audit: changes, Events: events.NewLog(func(ctx context.Context) (bus.Stream, error) { return events.Open(ctx, b) }), Domain: "localhost", Endpoints: api.DefaultEndpoints(),
		DefaultPlan: tenancy.PlanDev, Plans: tenancy.PlanNames(), OverridesBeyondPlan: true, Listen: "127.0.0.1:0", Log: telemetry.Discard(),
	}
	for _, change := range with {
		change(&cfg)
	}
	s, err := api.New(cfg)
	must(err)
	return s, cfg, names
}

// silent is a data plane that takes every message and knows nobody.
type silent struct{}

func (silent) Publish(context.Context, *tenancy.Tenant, mqtt.Message) (dataplane.Ack, error) {
	return dataplane.Ack{}, nil
}

func (silent) Query(context.Context, link.Query) (*link.Answer, error) { return &link.Answer{}, nil }

// closed is a certificate authority that issues nothing.
type closed struct{}

func (closed) Obtain(context.Context, string) (chain, key []byte, err error) {
	return nil, nil, errs.New(errs.Denied, "the CA is closed")
}

func (closed) Stored(context.Context, string) (chain, key []byte, err error) {
	return nil, nil, errs.New(errs.NotFound, "the CA has issued nothing")
}

func (closed) Forget(context.Context, string) error { return nil }

func (closed) Names(context.Context) ([]string, error) { return nil, nil }

func (closed) Suggested(context.Context, *x509.Certificate) (acme.Suggestion, error) {
	return acme.Suggestion{}, errs.New(errs.NotFound, "the authority of this test suggests nothing")
}
