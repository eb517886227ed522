// SPDX-License-Identifier: Apache-2.0

// Package ctl is the command line of manor for people: its commands, their
// flags and exit codes. What needs the whole product, manor dev, is added by
// services/cmd/manor. Commands own no goroutine beyond their run; they write to
// the streams of the cobra command, and know the product only through its
// public faces.
package ctl

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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
	root.PersistentFlags().StringP("output", "o", "human", "how results are written: human or json")
	root.AddCommand(version(), config(program), benchmark(program), conform(), admin())
	root.AddCommand(organization(), member(), key(), auditLog(), tenant(), credential(), device(), domain(), authMethod(), ban(), clients(), event(), plans(), publish(), quotas(), retained(), topics(), usage(), policies())
	return root
}

// JSON reports whether -o asks for JSON. The error is Invalid.
func JSON(cmd *cobra.Command) (bool, error) {
	switch o, err := cmd.Flags().GetString("output"); {
	case err != nil:
		return false, err
	case o == "human" || o == "json":
		return o == "json", nil
	default:
		return false, errs.New(errs.Invalid, "--output: expected human or json, found %q", o)
	}
}

// write writes v as a line of JSON with -o json, else human.
func write(cmd *cobra.Command, v any, human string) error {
	asJSON, err := JSON(cmd)
	if err != nil {
		return err
	}
	if asJSON {
		return json.NewEncoder(cmd.OutOrStdout()).Encode(v)
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), human)
	return err
}

func version() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return write(cmd, map[string]string{"name": "manor", "version": node.Version()}, "manor "+node.Version())
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
			return checkFile(cmd, filepath.Join(filepath.Dir(program), name), role, args[0])
		},
	}
	check.Flags().StringVar(&role, "role", "", "whose configuration it is: gateway, broker or tenancy (by its sections)")
	c := &cobra.Command{Use: "config", Short: "look at configuration files"}
	c.AddCommand(check)
	return c
}

// checkFile has the role's own program look at a file.
func checkFile(cmd *cobra.Command, daemon, role, file string) error {
	said, err := exec.CommandContext(cmd.Context(), daemon, "config", "check", file).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 2) {
		return fmt.Errorf("%s: %w: %s", daemon, err, said)
	}
	text := strings.TrimSpace(string(said))
	result := struct {
		File  string `json:"file"`
		Role  string `json:"role"`
		Valid bool   `json:"valid"`
		Error string `json:"error,omitempty"`
	}{File: file, Role: role, Valid: err == nil}
	if err != nil {
		result.Error = text
	}
	if werr := write(cmd, result, text); werr != nil {
		return werr
	}
	if err != nil {
		return errs.New(errs.Invalid, "%s is not valid", file)
	}
	return nil
}

// telling are the sections that tell roles apart.
var telling = []string{"listeners", "endpoints", "default_plan", "plans", "broker", "nats"}

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
	var hints strings.Builder
	for _, name := range slices.Sorted(maps.Keys(sections)) {
		if best, far := node.Nearest(name, telling); far > 0 && far <= 2 {
			fmt.Fprintf(&hints, "; for %q, did you mean %q?", name, best)
		}
	}
	return "", errs.New(errs.Invalid, "%s does not show whose configuration it is: say so with --role%s", file, hints.String())
}

// benchmark has no use for -o: one run is JSON, and a comparison a table.
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
