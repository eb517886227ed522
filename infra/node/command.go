// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/telemetry"
)

// Role is what a main says about itself.
type Role struct {
	// Name is the name of the program, such as "tenancyd".
	Name string
	// Short is one line for --help.
	Short string
	// Config points to the configuration with its defaults; Common to the
	// Config that is embedded in it.
	Config any
	Common *Config
	// Run runs the role with the loaded configuration.
	Run func(ctx context.Context, log *slog.Logger) error
}

// Command returns the command line of a role: the program itself with --config
// and a flag for every key, "config check FILE", "config show" and "version".
func Command(r Role) *cobra.Command {
	var path string
	load := func(cmd *cobra.Command, warn func(string)) error {
		return LoadConfig(r.Config, Sources{File: path, Environ: Environ(), Flags: cmd.Flags(), Warn: warn})
	}
	root := &cobra.Command{
		Use:           r.Name,
		Short:         r.Short,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var warnings []string
			if err := load(cmd, func(s string) { warnings = append(warnings, s) }); err != nil {
				return err
			}
			log, err := telemetry.NewLogger(cmd.ErrOrStderr(), r.Common.Log)
			if err != nil {
				return err
			}
			log = log.With("role", r.Name, "node", r.Common.NodeName())
			for _, w := range warnings {
				log.Warn("configuration", "warning", w)
			}
			return r.Run(cmd.Context(), log)
		},
	}
	root.PersistentFlags().StringVar(&path, "config", "", "YAML file with the configuration")
	RegisterFlags(root.Flags(), r.Config)
	config := &cobra.Command{Use: "config", Short: "look at the configuration"}
	config.AddCommand(&cobra.Command{
		Use:   "check FILE",
		Short: "validate a configuration file without starting",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := CheckConfig(args[0], r.Config); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: OK\n", args[0])
			return nil
		},
	}, &cobra.Command{
		Use:   "show",
		Short: "list every key with its default and meaning, as Markdown",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return WriteMarkdown(cmd.OutOrStdout(), r.Name, r.Config)
		},
	})
	root.AddCommand(config, &cobra.Command{
		Use:   "version",
		Short: "print the version",
		Args:  cobra.NoArgs,
		Run:   func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), r.Name, Version()) },
	})
	StrictUsage(root)
	return root
}

// CheckConfig validates a configuration file for a role whose defaults cfg
// holds, without regard to flags and the environment.
func CheckConfig(path string, cfg any) error {
	if path == "" {
		return errs.New(errs.Invalid, "expected the path of a configuration file")
	}
	return LoadConfig(cfg, Sources{File: path})
}

// CodeRetired is the Code of an error of a node that is none any more: to start it again as it is comes
// to the same. ExitRetired is its exit code, which no crash has: Go's runtime ends with 2.
const (
	CodeRetired = "node_retired"
	ExitRetired = 78
)

// ExitCode maps an error to the exit code of a program: 0 for none, ExitRetired for CodeRetired, 2 for
// what the caller must correct, 1 for the rest.
func ExitCode(err error) int {
	switch {
	case err == nil:
		return 0
	case errs.CodeOf(err) == CodeRetired:
		return ExitRetired
	case errs.KindOf(err) == errs.Invalid:
		return 2
	default:
		return 1
	}
}
