// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/manormq/manor/infra/bus/embed"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/node"
	"github.com/manormq/manor/infra/telemetry"
)

// natsServer is the hidden command of which manor dev makes the NATS process,
// so that nobody has to install one.
func natsServer() *cobra.Command {
	var token, level string
	var cfg embed.Config
	c := &cobra.Command{
		Use:    "nats",
		Short:  "run a NATS server for manor dev",
		Args:   cobra.NoArgs,
		Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := telemetry.NewLogger(cmd.ErrOrStderr(), telemetry.LogConfig{Format: "text", Level: level})
			if err != nil {
				return err
			}
			cfg.Log = log.With("role", "nats", "node", cfg.Name)
			if cfg.Token, err = readToken(token); err != nil {
				return err
			}
			var server *embed.Server
			return node.Run(cmd.Context(), node.Options{Log: cfg.Log}, node.Part{
				Name: "nats",
				Start: func(ctx context.Context) (err error) {
					server, err = embed.Start(ctx, cfg)
					return err
				},
				Stop: func() error { server.Shutdown(); return nil },
			})
		},
	}
	f := c.Flags()
	f.StringVar(&cfg.Name, "name", "nats-1", "name of the server, unique in its cluster")
	f.StringVar(&cfg.Dir, "data", "data/nats-1", "folder of JetStream")
	f.StringVar(&cfg.Listen, "listen", "127.0.0.1:4222", "address")
	f.StringVar(&cfg.Cluster, "cluster", "", "name of the cluster that it is one of; empty is a server on its own")
	f.StringVar(&cfg.ClusterListen, "cluster-listen", "127.0.0.1:6222", "address for the other servers of the cluster")
	f.StringSliceVar(&cfg.Routes, "routes", nil, "cluster-listen of every server of the cluster")
	f.StringVar(&token, "token-file", "", "file with what clients, and the servers of a cluster, must show")
	f.StringVar(&level, "log-level", "warn", "debug, info, warn or error")
	return c
}

// busToken returns the file with the secret of the bus of a data folder, and
// the secret; it is made on first use.
func busToken(data string) (file, secret string, err error) {
	file = filepath.Join(data, "pki", "nats.token")
	secret, err = readToken(file)
	if !errors.Is(err, fs.ErrNotExist) {
		return file, secret, err
	}
	secret = rand.Text()
	return file, secret, os.WriteFile(file, []byte(secret+"\n"), 0o600)
}

// checkServers returns an error if the folder was used with another number of NATS
// servers: a cluster does not see what a server on its own kept, nor the other way, and
// what the missing ones of a cluster kept would be.
func (o *options) checkServers() error {
	was := 0
	for {
		if _, err := os.Stat(filepath.Join(o.data, natsName(was+1), "jetstream")); err != nil {
			break
		}
		was++
	}
	_, err := os.Stat(filepath.Join(o.data, natsName(1), "jetstream", "$SYS", "_js_", "_meta_"))
	clustered := err == nil
	if was == 0 || was <= o.servers() && clustered == (o.servers() > 1) {
		return nil
	}
	if clustered {
		was = max(was, 3)
	}
	return errs.New(errs.Invalid, "--nats: %s is of %d NATS servers, and another number would not find what they keep: expected --nats %d, or another --data", o.data, was, was)
}

func natsName(k int) string { return fmt.Sprintf("nats-%d", k) }

func readToken(file string) (string, error) {
	text, err := os.ReadFile(file)
	return strings.TrimSpace(string(text)), err
}
