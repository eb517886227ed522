// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/manormq/manor/infra/bus/embed"
	"github.com/manormq/manor/infra/node"
	"github.com/manormq/manor/infra/telemetry"
)

// natsServer is the hidden command of which manor dev makes the NATS process,
// so that nobody has to install one.
func natsServer() *cobra.Command {
	var name, data, listen, token, level string
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
			log = log.With("role", "nats", "node", name)
			secret, err := readToken(token)
			if err != nil {
				return err
			}
			var server *embed.Server
			return node.Run(cmd.Context(), node.Options{Log: log}, node.Part{
				Name: "nats",
				Start: func(ctx context.Context) (err error) {
					server, err = embed.Start(ctx, embed.Config{Dir: data, Name: name, Listen: listen, Token: secret, Log: log})
					return err
				},
				Stop: func() error { server.Shutdown(); return nil },
			})
		},
	}
	f := c.Flags()
	f.StringVar(&name, "name", "nats-1", "name of the server")
	f.StringVar(&data, "data", "data/nats-1", "folder of JetStream")
	f.StringVar(&listen, "listen", "127.0.0.1:4222", "address")
	f.StringVar(&token, "token-file", "", "file with what clients must show")
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

func readToken(file string) (string, error) {
	text, err := os.ReadFile(file)
	return strings.TrimSpace(string(text)), err
}
