// SPDX-License-Identifier: Apache-2.0

// Command brokerd is a broker: it owns sessions, queues and retained messages,
// and answers the gateways' links.
package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/pflag"

	"github.com/manormq/manor/infra/bus/nats"
	"github.com/manormq/manor/infra/node"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/services/broker"
)

type config struct {
	node.Config `yaml:",inline"`
	Broker      broker.Config `yaml:"broker"`
	NATS        nats.Section  `yaml:"nats"`
}

// Validate is called once the configuration is loaded.
func (c *config) Validate() error {
	if err := c.joined(); err != nil {
		return err
	}
	var p node.Problems
	p.Add("", c.Config.Validate())
	p.Expect(c.Broker.Listen != "", "broker.listen: expected an address for the gateways' links, such as 127.0.0.1:44054")
	p.Add("broker.", c.Broker.Validate())
	p.Add("nats.", c.NATS.Validate())
	return p.Err()
}

func main() {
	c := &config{Config: node.DefaultConfig("127.0.0.1:8888"), Broker: broker.DefaultConfig(), NATS: nats.DefaultSection()}
	c.Broker.Listen = "127.0.0.1:44054"
	cmd := node.Command(node.Role{
		Name: "brokerd", Short: "run a broker: sessions, queues and retained messages",
		Config: c, Common: &c.Config,
		Run: func(ctx context.Context, log *slog.Logger) error { return run(ctx, c, log) },
	})
	// The two that people type.
	short := map[string]string{"join": "broker-cluster-join", "token": "broker-cluster-token"}
	cmd.Flags().SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		return pflag.NormalizedName(cmp.Or(short[name], name))
	})
	if err := cmd.ExecuteContext(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "brokerd:", err)
		os.Exit(node.ExitCode(err))
	}
}

func run(ctx context.Context, c *config, log *slog.Logger) error {
	if c.Broker.Cluster.On() {
		if err := c.join(ctx, log); err != nil {
			return err
		}
		control, err := c.NATS.Connect(c.NodeName(), log)
		if err != nil {
			return err
		}
		defer func() { _ = control.Close() }()
		c.Broker.Bus = control
	}
	reg := telemetry.NewRegistry("broker", node.Version())
	b, err := broker.New(c.Broker, c.NodeName(), log, reg)
	if err != nil {
		return err
	}
	health := &node.Health{}
	health.Register("store", b.Check)
	operator := node.NewOperator(c.Operator, c.NodeName(), "broker", log, reg, health)
	b.Operate(operator, health, nil)
	return node.Run(ctx, node.Options{Log: log, DrainTimeout: c.DrainTimeout},
		operator.Part(), node.Part{Name: "broker", Run: b.Run, Drain: b.Drain})
}
