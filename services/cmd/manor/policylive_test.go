// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/manormq/manor/gateway"
	"github.com/manormq/manor/gateway/listener"
	"github.com/manormq/manor/gateway/uplink"
	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/bus/embed"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/api"
	"github.com/manormq/manor/services/api/dataplane"
	"github.com/manormq/manor/services/broker"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/audit"
	"github.com/manormq/manor/tenancy/authn/password"
	"github.com/manormq/manor/tenancy/decide"
	"github.com/manormq/manor/tenancy/domains"
	"github.com/manormq/manor/tenancy/events"
	"github.com/manormq/manor/tenancy/policy"
	"github.com/manormq/manor/tenancy/remote"
	"github.com/manormq/manor/tenancy/store"
)

// startPolicyGateways starts a broker, the API, and gateways that each hear of changes
// over the bus by themselves; it returns a product for each gateway. After away nobody
// answers what gateways ask about policies.
func startPolicyGateways(t *testing.T, n int) (all []*product, away func()) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	log := slog.New(slog.DiscardHandler)
	run := func(f func(context.Context) error) {
		wg.Go(func() {
			if err := f(ctx); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		})
	}
	server, err := embed.Start(t.Context(), embed.Config{Dir: t.TempDir(), Name: "nats-1", Log: log})
	must(err)
	t.Cleanup(server.Shutdown)
	control, err := server.Bus("test")
	must(err)
	records, err := store.New(t.Context(), store.Config{Bus: control, Log: log, Region: regionName})
	must(err)
	verifier, err := password.NewVerifier(0)
	must(err)
	config := broker.DefaultConfig()
	config.Data = t.TempDir()
	sessions, err := broker.New(config, "broker-1", log, prometheus.NewRegistry())
	must(err)
	dial := func(_ context.Context, gw link.Gateway) (link.Broker, error) { return sessions.Attach(gw), nil }
	plane, err := dataplane.New(dataplane.Config{Name: "api-1", Dial: dial, Log: log})
	must(err)
	rules, err := policy.New(t.Context())
	must(err)
	changes, err := audit.Open(t.Context(), audit.Config{Bus: control, Log: log, Days: records.AuditDays})
	must(err)
	policies, err := decide.New(decide.Config{Store: records, Log: log})
	must(err)
	custom, err := domains.New(t.Context(), domains.Config{Store: records, Domain: devDomain, Log: log})
	must(err)
	public, err := api.New(api.Config{
		Domains: custom,
		Store:   records, Policies: policies, Hasher: verifier, Data: plane, RBAC: rules, Audit: changes, Domain: devDomain,
		Events:      events.NewLog(func(ctx context.Context) (bus.Stream, error) { return events.Open(ctx, control) }),
		DefaultPlan: tenancy.PlanDev, Plans: tenancy.PlanNames(), OverridesBeyondPlan: true, Listen: "127.0.0.1:0", Log: log,
	})
	must(err)
	web := httptest.NewServer(public.Handler())
	t.Cleanup(web.Close)
	t.Cleanup(func() { // before what it stands on
		cancel()
		wg.Wait()
	})
	run(sessions.Run)
	run(plane.Run)
	answering, away := context.WithCancel(ctx)
	run(func(context.Context) error { return policies.Run(answering) })
	for i := range n {
		own, err := server.Bus(fmt.Sprint("gateway-", i+1))
		must(err)
		names, err := remote.New(remote.Config{Bus: own, Verifier: verifier, Domain: devDomain, Region: regionName, Log: log})
		must(err)
		edge, err := gateway.New(gateway.Config{
			Name: fmt.Sprint("gateway-", i+1), Listeners: []listener.Config{{Name: "mqtt", Kind: listener.MQTT, Address: "127.0.0.1:0"}}, Directory: names,
			Record: names.Record, Check: names.AskCheck, Domain: devDomain, Links: 1, Dialer: uplink.DialerFunc(dial), Log: log, Registerer: prometheus.NewRegistry(),
		})
		must(err)
		run(names.Run)
		run(edge.Run)
		must(names.Ready(t.Context()))
		all = append(all, &product{mqtt: edge.Addrs()["mqtt"].String(), api: web.URL})
	}
	return all, away
}

// TestPolicy_LiveOnTwoGateways: a new revision is effective on every gateway within
// 2 s. MANOR_TRIES is how often it is tried.
func TestPolicy_LiveOnTwoGateways(t *testing.T) {
	tries := 20
	if s := os.Getenv("MANOR_TRIES"); s != "" {
		var err error
		if tries, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	all, _ := startPolicyGateways(t, 2)
	x := all[0].signUp(t, "acme")
	var devices []*device
	for i, p := range all {
		own := *x
		own.p, own.n = p, 100*i
		d := own.device()
		d.subscribe("never/granted", 0, 0)
		devices = append(devices, d)
	}
	var took []time.Duration
	for i := range tries {
		topic := []string{"a/1", "b/1"}[i%2]
		begin := time.Now()
		x.policy(fmt.Sprintf(`grants contains {"action": "all", "filter": %q}`, []string{"b/1", "a/1"}[i%2]))
		answered := time.Now()
		for k, d := range devices {
			for d.acked(topic) != mqtt.NotAuthorized {
				if time.Since(answered) > live {
					t.Fatalf("try %d: gateway %d still lets it through %v after the answer", i, k+1, time.Since(answered))
				}
			}
			took = append(took, time.Since(begin))
		}
	}
	slices.Sort(took)
	at := func(p int) time.Duration { return took[min(len(took)-1, len(took)*p/100)] }
	t.Logf("%d changes on 2 gateways, from the request until it holds: p50 %v, p99 %v, most %v", tries, at(50), at(99), took[len(took)-1])
	if at(99) > live {
		t.Errorf("p99 is %v", at(99))
	}
}
