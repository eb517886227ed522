// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/manormq/manor/gateway"
	"github.com/manormq/manor/gateway/listener"
	"github.com/manormq/manor/gateway/uplink"
	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/bus/embed"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/node"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/services/api"
	"github.com/manormq/manor/services/api/dataplane"
	"github.com/manormq/manor/services/broker"
	"github.com/manormq/manor/services/broker/operate"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/audit"
	"github.com/manormq/manor/tenancy/cells"
	"github.com/manormq/manor/tenancy/decide"
	"github.com/manormq/manor/tenancy/directory"
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

// regionName is the only region of manor dev.
const regionName = "local"

// runDev runs manor dev until it is told to stop.
func runDev(ctx context.Context, o *options, out, errout io.Writer) error {
	started := time.Now()
	log, err := telemetry.NewLogger(errout, telemetry.LogConfig{Format: "text", Level: o.logLevel})
	if err != nil {
		return err
	}
	if o.data, err = filepath.Abs(o.data); err != nil {
		return err
	}
	unlock, err := lockFolder(o.data)
	if err != nil {
		return err
	}
	defer unlock()
	ca, err := openAuthority(o.data)
	if err != nil {
		return err
	}
	if err := o.checkServers(); err != nil {
		return err
	}
	all := o.layout()
	if err := o.checkPorts(ctx, all); err != nil {
		return err
	}
	ready := func() {
		if err := newReport(o, ca.file, all).write(out, o, time.Since(started)); err != nil {
			log.Error("standard output cannot be written", "error", err)
		}
	}
	if o.brokers == 0 {
		return runProduct(ctx, o, &all[0], ca, log, func(*prometheus.Registry) { ready() })
	}
	return runProcesses(ctx, o, all, ca, log, errout, ready)
}

// runProduct runs the whole product in this process. It reads from the ground
// up; what is made first is stopped last.
func runProduct(ctx context.Context, o *options, p *process, ca *authority, log *slog.Logger, ready func(*prometheus.Registry)) error {
	p.PID = os.Getpid()
	folder := func(name string) string { return filepath.Join(o.data, name) }
	certFile, keyFile, err := ca.listeners()
	if err != nil {
		return err
	}
	registry := telemetry.NewRegistry("all", node.Version())
	health := &node.Health{}
	operator := node.NewOperator(node.OperatorConfig{Listen: p.local("operator")}, p.Name, p.Role, log, registry, health)

	// The bus: a NATS server without a socket.
	server, err := embed.Start(ctx, embed.Config{Dir: folder("nats-1"), Name: "nats-1", Log: log})
	if err != nil {
		return err
	}
	defer server.Shutdown()
	health.Register("nats", server.Check)
	control, err := server.Bus(p.Name)
	if err != nil {
		return err
	}
	defer func() { _ = control.Close() }()

	// Who is who, and may do what.
	if err := makeKeys(ca.dir); err != nil {
		return err
	}
	hostKeys, err := managedca.LoadSealer(domainKey(ca.dir))
	if err != nil {
		return err
	}
	installed, err := decide.OpenInstallation(ctx, decide.InstallationConfig{Dir: o.policies, Log: log, Registerer: registry})
	if err != nil {
		return err
	}
	records, err := store.New(ctx, store.Config{Bus: control, Log: log, Region: regionName, Tickets: hostKeys, Limiter: installed.Limiter()})
	if err != nil {
		return err
	}
	if o.anonymous != "" {
		if _, err := records.EnsureTenant(ctx, o.anonymous, store.EnsureOptions{}); err != nil {
			return err
		}
	}
	names, err := directory.New(directory.Config{Store: records, Domain: devDomain, OpenKey: hostKeys.Open, Log: log})
	if err != nil {
		return err
	}

	// Sessions, queues, retained messages.
	config := broker.DefaultConfig()
	config.Data, config.Operator = folder("broker-1"), o.anonymous
	sessions, err := broker.New(config, "broker-1", log, registry)
	if err != nil {
		return err
	}
	health.Register("store", sessions.Check)

	health.Register("directory", names.Ready)

	openEvents := func(ctx context.Context) (bus.Stream, error) { return events.Open(ctx, control) }
	history := events.NewWriter(openEvents, log)
	// Connections. The link to the broker is a call.
	dial := func(_ context.Context, gw link.Gateway) (link.Broker, error) { return sessions.Attach(gw), nil }
	edge, err := gateway.New(gateway.Config{
		Name: "gateway-1", Listeners: listeners(o, p, certFile, keyFile, ca.hosts), Directory: names, Hosts: names.CustomHost, Tickets: names.TicketSecrets, Record: names.Record, Check: names.AskCheck, Domain: devDomain, Anonymous: o.anonymous, Links: 1,
		Dialer: uplink.DialerFunc(dial), Bus: control, Alone: true, Events: history, Log: log, Registerer: registry,
	})
	if err != nil {
		return errors.Join(err, sessions.Close())
	}
	health.Register("link", edge.Healthy)
	sessions.Operate(operator, health, func() []operate.Listener { return shownListeners(edge.Addrs()) })

	// The API asks the broker over a link of its own.
	plane, err := dataplane.New(dataplane.Config{Name: "api-1", Dial: dial, Log: log})
	if err != nil {
		return errors.Join(err, sessions.Close())
	}
	health.Register("api link", plane.Check)
	rules, err := policy.New(ctx)
	if err != nil {
		return errors.Join(err, sessions.Close())
	}
	changes, err := audit.Open(ctx, audit.Config{Bus: control, Log: log, Days: records.AuditDays})
	if err != nil {
		return errors.Join(err, sessions.Close())
	}
	policies, err := decide.New(decide.Config{Store: records, Log: log, Registerer: registry})
	if err != nil {
		return errors.Join(err, sessions.Close())
	}
	fetcher, err := jwks.New(jwks.Config{Store: records, Networks: loopback(), Log: log})
	if err != nil {
		return errors.Join(err, sessions.Close())
	}
	sealer, err := managedca.LoadSealer(secretsKey(ca.dir))
	if err != nil {
		return errors.Join(err, sessions.Close())
	}
	used := usage.New(control)
	past := events.NewLog(openEvents)
	custom, end, err := domains.Open(ctx, o.domains(ca.dir), sealer, domains.Config{Store: records, Domain: devDomain, Settle: o.settle, Log: log, Registerer: registry})
	if err != nil {
		return errors.Join(err, sessions.Close())
	}
	defer end()
	fromFiles, err := sources.New(ctx, sources.Config{
		Dir: o.sources, Store: records, Policies: policies, Hasher: names.Verifier(), Audit: changes, Happened: history.Add, Log: log, Registerer: registry,
	})
	if err != nil {
		return errors.Join(err, sessions.Close())
	}
	growing, err := cells.New(ctx, cells.Config{Store: records, Brokers: plane, Log: log, Registerer: registry})
	if err != nil {
		return errors.Join(err, sessions.Close())
	}
	purging, err := purge.New(ctx, purge.Config{Store: records, Brokers: plane, Domains: custom, Events: past, Audit: changes, Settle: o.purgeSettle, Log: log, Registerer: registry})
	if err != nil {
		return errors.Join(err, sessions.Close())
	}
	public, err := api.New(api.Config{
		Store: records, Policies: policies, Hasher: names.Verifier(), Data: plane, RBAC: rules, Audit: changes, Domains: custom, Sources: fromFiles, Sealer: sealer, Events: past, Happened: history.Add, Used: used, Admission: installed, Bus: control, Domain: devDomain, DefaultPlan: tenancy.PlanDev, DeletionGrace: o.grace, Plans: tenancy.PlanNames(), OverridesBeyondPlan: true,
		Endpoints: api.Endpoints{MQTT: p.Ports["mqtt"], MQTTS: p.Ports["mqtts"], WS: p.Ports["ws"], WSS: p.Ports["wss"]},
		Listen:    p.addr(o.bind, "api"), Log: log, Registerer: registry,
	})
	if err != nil {
		return errors.Join(err, sessions.Close())
	}

	operator.Mount(api.OperatorPrefix, public.Operator())
	return node.Run(ctx, node.Options{Log: log},
		operator.Part(),
		certificates(ca, tenantsBucket(control), log),
		node.Part{Name: "directory", Run: names.Run},
		node.Part{Name: "broker", Run: sessions.Run},
		node.Part{Name: "api link", Run: plane.Run},
		public.Part(),
		node.Part{Name: "sign-ups", Run: records.RunReaper},
		node.Part{Name: "tickets", Run: records.RunTickets},
		node.Part{Name: "bans", Run: records.RunBans},
		node.Part{Name: "token keys", Run: fetcher.Run},
		node.Part{Name: "audit", Run: changes.Run},
		node.Part{Name: "policies", Run: policies.Run},
		node.Part{Name: "installation's policy", Run: func(ctx context.Context) error { return installed.Run(ctx, records) }},
		node.Part{Name: "old events", Run: func(ctx context.Context) error { return past.Run(ctx, records.EventDays, log) }},
		node.Part{Name: "domains", Run: custom.Run},
		node.Part{Name: "sources", Run: fromFiles.Run},
		node.Part{Name: "cells", Run: growing.Run},
		node.Part{Name: "purges", Run: purging.Run},
		node.Part{Name: "usage", Run: used.Run},
		node.Part{Name: "events", Run: history.Run}, // which hears how each connection ends
		node.Part{Name: "gateway", Run: edge.Run, Drain: edge.Drain},
		whenWell(health, func() { ready(registry) }),
	)
}

// makeKeys makes the files of the keys with which secrets are sealed, unless they are
// there.
func makeKeys(dir string) error {
	return errors.Join(managedca.MakeKeyFile(secretsKey(dir)), managedca.MakeKeyFile(domainKey(dir)))
}

// domainKey is the file of the key with which keys of custom domains are sealed.
func domainKey(dir string) string { return filepath.Join(dir, "domains.key") }

// domains is how custom domains are configured.
func (o *options) domains(dir string) domains.Section {
	s := domains.DefaultSection()
	s.KeyFile, s.Resolver = domainKey(dir), o.resolver
	if o.acme != "" {
		s.ACME.Enabled, s.ACME.Directory, s.ACME.CAFile = true, o.acme, o.acmeCA
	}
	return s
}

// secretsKey is the file of the key with which keys of managed CAs are sealed.
func secretsKey(dir string) string { return filepath.Join(dir, "secrets.key") }

// loopback is where the keys of issuers may be fetched from in manor dev, beside the
// internet: developers have theirs on the same machine.
func loopback() []string { return []string{"127.0.0.0/8", "::1"} }

// shownListeners are a gateway's listeners as operators see them, under VerneMQ's names
// of their kinds.
func shownListeners(addrs map[string]net.Addr) (all []operate.Listener) {
	kinds := map[string]string{"ws": "mqttws", "wss": "mqttwss"}
	for _, name := range slices.Sorted(maps.Keys(addrs)) {
		host, port, _ := net.SplitHostPort(addrs[name].String())
		all = append(all, operate.Listener{Type: cmp.Or(kinds[name], name), Status: operate.Running, IP: host, Port: port})
	}
	return all
}

// whenWell is a part that calls ready once everything before it works.
func whenWell(health *node.Health, ready func()) node.Part {
	return node.Part{Name: "ready", Start: func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, readyTime)
		defer cancel()
		for {
			report := health.Check(ctx)
			if report.Status == "OK" {
				ready()
				return nil
			}
			select {
			case <-time.After(5 * time.Millisecond):
			case <-ctx.Done():
				return errs.New(errs.Unavailable, "not ready after %v: %s", readyTime, strings.Join(report.Reasons, "; "))
			}
		}
	}}
}

// listeners are the four listeners of a gateway in manor dev.
func listeners(o *options, p *process, certFile, keyFile, certDir string) []listener.Config {
	return []listener.Config{
		{Name: "mqtt", Kind: listener.MQTT, Address: p.addr(o.bind, "mqtt")},
		{Name: "mqtts", Kind: listener.MQTTS, Address: p.addr(o.bind, "mqtts"), CertFile: certFile, KeyFile: keyFile, CertDir: certDir},
		{Name: "ws", Kind: listener.WS, Address: p.addr(o.bind, "ws")},
		{Name: "wss", Kind: listener.WSS, Address: p.addr(o.bind, "wss"), CertFile: certFile, KeyFile: keyFile, CertDir: certDir},
	}
}
