// SPDX-License-Identifier: Apache-2.0

// Package ctl is the command line of manor for people: its commands, their
// flags and exit codes. What needs the whole product, manor dev, is added by
// services/cmd/manor. Commands own no goroutine beyond their run; they write to
// the streams of the cobra command, and know the product only through its
// public faces.
package ctl

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/node"
	"github.com/manormq/manor/services/bench"
)

// New returns the root command with the commands of this package. program is
// the path of the running program.
func New(program string) *cobra.Command {
	root := &cobra.Command{
		Use:           "manor",
		Short:         "Manor is an MQTT cloud for many tenants",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return errs.New(errs.Invalid, "%w", err) })
	root.AddCommand(version(), config(program), benchmark(program))
	return root
}

// ExitCode is the exit code for what a command returned: 0, 2 for what the
// caller must correct, 1 for the rest.
func ExitCode(err error) int {
	if err != nil && strings.HasPrefix(err.Error(), "unknown command") {
		return 2
	}
	return node.ExitCode(err)
}

func version() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "manor", node.Version())
			return err
		},
	}
}

// programs are the programs of the roles, which know their configuration.
var programs = map[string]string{"gateway": "gatewayd", "broker": "brokerd", "tenancy": "tenancyd"}

func config(program string) *cobra.Command {
	var role string
	check := &cobra.Command{
		Use:   "check FILE",
		Short: "validate a configuration file without starting",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if role == "" {
				found, err := roleOf(args[0])
				if err != nil {
					return err
				}
				role = found
			}
			name, ok := programs[role]
			if !ok {
				return errs.New(errs.Invalid, "--role: expected gateway, broker or tenancy, found %q", role)
			}
			daemon := exec.CommandContext(cmd.Context(), filepath.Join(filepath.Dir(program), name), "config", "check", args[0])
			daemon.Stdout, daemon.Stderr = cmd.OutOrStdout(), cmd.ErrOrStderr()
			err := daemon.Run()
			var exit *exec.ExitError
			if errors.As(err, &exit) && exit.ExitCode() == 2 {
				return errs.New(errs.Invalid, "%s is not valid", args[0])
			}
			return err
		},
	}
	check.Flags().StringVar(&role, "role", "", "whose configuration it is: gateway, broker or tenancy (by its sections)")
	c := &cobra.Command{Use: "config", Short: "look at configuration files"}
	c.AddCommand(check)
	return c
}

// roleOf finds out from the sections of a file whose configuration it is.
func roleOf(file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", errs.New(errs.Invalid, "%w", err)
	}
	var sections map[string]any
	if err := yaml.Unmarshal(text, &sections); err != nil {
		return "", errs.New(errs.Invalid, "%s: %w", file, err)
	}
	has := func(name string) bool { _, ok := sections[name]; return ok }
	switch {
	case has("listeners"):
		return "gateway", nil
	case has("endpoints") || has("default_plan"):
		return "tenancy", nil
	case has("broker") && !has("nats"):
		return "broker", nil
	}
	return "", errs.New(errs.Invalid, "%s does not show whose configuration it is: say so with --role", file)
}

func benchmark(program string) *cobra.Command {
	return &cobra.Command{
		Use:   "bench [flags] | bench compare [flags]",
		Short: "measure a broker, or compare Manor with mosquitto",
		// The generator's flags begin with one dash or two, as Go's do.
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			err := bench.Main(cmd.Context(), program, args, cmd.OutOrStdout(), cmd.ErrOrStderr())
			if errors.Is(err, flag.ErrHelp) {
				return nil
			}
			return err
		},
	}
}
