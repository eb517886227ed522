// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/services/broker"
	"github.com/manormq/manor/services/broker/join"
)

// files are where this broker keeps what it has from joining.
func (c *config) files() join.Files { return join.Files{Dir: c.Broker.JoinDir()} }

// joined takes over what the broker was told when it joined, or will be: what is written
// in the configuration counts more.
func (c *config) joined() error {
	k := &c.Broker.Cluster
	if k.Join == "" || c.Broker.Cert != "" && c.Broker.Cert != c.files().Cert() {
		return nil
	}
	f := c.files()
	c.Broker.Cert, c.Broker.Key, c.Broker.CA = f.Cert(), f.Key(), f.CA()
	told, err := f.Cluster()
	if err != nil || told == nil {
		return err
	}
	c.take(told)
	return nil
}

func (c *config) take(told *join.Cluster) {
	d := broker.DefaultConfig()
	if c.Broker.Partitions == d.Partitions {
		c.Broker.Partitions = told.Partitions
	}
	if c.Broker.Cluster.Replicas == d.Cluster.Replicas {
		c.Broker.Cluster.Replicas = told.Replicas
	}
	if c.NATS.TokenFile == "" && len(told.NATS) > 0 {
		c.NATS.URLs, c.NATS.Replicas = told.NATS, told.NATSReplicas
		if told.NATSToken != "" {
			c.NATS.TokenFile = c.files().NATSToken()
		}
	}
}

// joinTime is for how long a cluster that does not answer is asked.
const joinTime = time.Minute

// join gets this broker its certificate, unless it has one; and says what those that join
// here are told.
func (c *config) join(ctx context.Context, log *slog.Logger) error {
	k := &c.Broker.Cluster
	if c.Broker.Cert == c.files().Cert() {
		told, err := c.files().Cluster()
		if err != nil {
			return err
		}
		if told == nil {
			if k.Token == "" {
				return errs.New(errs.Invalid, "broker.cluster.token: expected a join token (manor admin cluster token create), since this broker has not joined yet")
			}
			ctx, cancel := context.WithTimeout(ctx, joinTime)
			defer cancel()
			if told, err = join.Join(ctx, c.files(), k.Join, k.Token, c.NodeName(), log); err != nil {
				return err
			}
			log.Info("the cluster has given this broker a certificate", slog.String("at", k.Join))
			c.take(told)
		}
	}
	c.Broker.Joins = join.Cluster{NATS: c.NATS.URLs, NATSReplicas: c.NATS.Replicas}
	if c.NATS.TokenFile != "" {
		secret, err := os.ReadFile(c.NATS.TokenFile)
		if err != nil {
			return errs.New(errs.Invalid, "nats.token_file: %w", err)
		}
		c.Broker.Joins.NATSToken = strings.TrimSpace(string(secret))
	}
	return nil
}
