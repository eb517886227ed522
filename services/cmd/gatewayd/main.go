// SPDX-License-Identifier: Apache-2.0

// Command gatewayd is a gateway: it terminates clients' connections and keeps
// nothing but what it needs to let known devices in while the control plane is
// away.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/manormq/manor/gateway"
	"github.com/manormq/manor/gateway/uplink"
	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/bus/nats"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/node"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/infra/wire"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/authn/jwt"
	"github.com/manormq/manor/tenancy/authn/password"
	"github.com/manormq/manor/tenancy/authn/scram"
	"github.com/manormq/manor/tenancy/events"
	"github.com/manormq/manor/tenancy/remote"
)

func main() {
	c := defaults()
	cmd := node.Command(node.Role{
		Name: "gatewayd", Short: "run a gateway: listeners for MQTT over TCP, TLS and WebSocket",
		Config: c, Common: &c.Config,
		Run: func(ctx context.Context, log *slog.Logger) error { return run(ctx, c, log) },
	})
	if err := cmd.ExecuteContext(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "gatewayd:", err)
		os.Exit(node.ExitCode(err))
	}
}

// controlPlane says how the control plane is doing, for /status.json: gateways
// do without it, so that their health does not show it.
func controlPlane(control *nats.Bus, directory *remote.Directory) any {
	return struct {
		Connected bool `json:"connected"`
		remote.Status
	}{control.Connected(), directory.Status()}
}

func run(ctx context.Context, c *config, log *slog.Logger) error {
	mutual, err := wire.TLS(c.Broker.Cert, c.Broker.Key, c.Broker.CA)
	if err != nil {
		return err
	}
	key, err := remote.LoadKey(filepath.Join(c.Data, "node.key"))
	if err != nil {
		return err
	}
	verifier, err := password.NewVerifier(0)
	if err != nil {
		return err
	}
	methods, err := scram.NewServer()
	if err != nil {
		return err
	}
	tokens, err := jwt.New()
	if err != nil {
		return err
	}
	control, err := c.NATS.Connect(c.NodeName(), log)
	if err != nil {
		return err
	}
	defer func() { _ = control.Close() }()
	open, err := c.keys()
	if err != nil {
		return err
	}
	directory, err := remote.New(remote.Config{
		Bus: control, Name: c.NodeName(), Verifier: verifier, Tokens: tokens, SCRAM: func(find func(string) (*tenancy.SCRAM, error)) (remote.Conversation, error) {
			return methods.Begin(find)
		}, Domain: c.Domain, OpenKey: open, Region: c.Region,
		Snapshot: filepath.Join(c.Data, "directory.snapshot"), Key: key, Log: log,
	})
	if err != nil {
		return err
	}
	var seeds []uplink.Dialer
	for _, address := range c.Broker.seeds() {
		seeds = append(seeds, uplink.DialerFunc(func(ctx context.Context, gw link.Gateway) (link.Broker, error) {
			return link.Dial(ctx, address, mutual, c.NodeName(), gw)
		}))
	}
	registry := telemetry.NewRegistry("gateway", node.Version())
	history := events.NewWriter(func(ctx context.Context) (bus.Stream, error) { return events.Open(ctx, control) }, log)
	edge, err := gateway.New(gateway.Config{
		Name: c.NodeName(), Listeners: c.Listeners, Directory: directory, Hosts: directory.CustomHost, Tickets: directory.TicketSecrets, Record: directory.Record, Check: directory.AskCheck, Domain: c.Domain, Anonymous: c.Anonymous,
		Links: c.Broker.Links, Loops: c.Loops, ConnectTimeout: c.ConnectTimeout, Bus: control, Events: history, Log: log, Registerer: registry,
		OwnerWait: c.Broker.OwnerWait, GuestWait: c.Broker.GuestWait, Seeds: seeds,
		Dial: func(ctx context.Context, b link.TableBroker, gw link.Gateway) (link.Broker, error) {
			return link.DialBroker(ctx, b, mutual, c.NodeName(), gw)
		},
	})
	if err != nil {
		return err
	}
	health := &node.Health{}
	health.Register("link", edge.Healthy)
	health.Register("directory", directory.Check)
	health.RegisterApart("control_plane", directory.CheckContact)
	directory.Register(registry)
	operator := node.NewOperator(c.Operator, c.NodeName(), "gateway", log, registry, health)
	operator.Detail("control_plane", func() any { return controlPlane(control, directory) })
	return node.Run(ctx, node.Options{Log: log, DrainTimeout: c.DrainTimeout},
		operator.Part(),
		node.Part{Name: "directory", Run: directory.Run},
		node.Part{Name: "events", Run: history.Run}, // which hears how each connection ends
		node.Part{Name: "gateway", Run: edge.Run, Drain: edge.Drain})
}
