// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"github.com/manormq/manor/tenancy/remote"
)

// metricsDocument is the hidden command that writes docs/metrics.md: it runs
// the product for a moment and describes what is registered.
func metricsDocument() *cobra.Command {
	return &cobra.Command{
		Use: "metrics", Short: "describe every metric, as Markdown", Args: cobra.NoArgs, Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			data, err := os.MkdirTemp("", "manor-metrics")
			if err != nil {
				return err
			}
			defer func() { _ = os.RemoveAll(data) }()
			ca, err := openAuthority(data)
			if err != nil {
				return err
			}
			o := &options{data: data, bind: "127.0.0.1"}
			p := o.layout()[0]
			for port := range p.Ports {
				p.Ports[port] = 0 // any
			}
			ctx, stop := context.WithCancel(cmd.Context())
			defer stop()
			return runProduct(ctx, o, &p, ca, slog.New(slog.DiscardHandler), func(r *prometheus.Registry) {
				new(remote.Directory).Register(r) // only gatewayd has it
				writeMetrics(cmd.OutOrStdout(), r)
				stop()
			})
		},
	}
}

// description takes a prometheus.Desc apart, which only shows itself as text.
var description = regexp.MustCompile(`fqName: "([^"]*)", help: "([^"]*)".*constLabels: \{.*?\}, variableLabels: \{([^}]*)\}`)

// writeMetrics writes a table of what is registered with r, without the Go
// runtime's and the process's own.
func writeMetrics(w io.Writer, r *prometheus.Registry) {
	ch := make(chan *prometheus.Desc)
	go func() {
		r.Describe(ch)
		close(ch)
	}()
	var lines []string
	for d := range ch {
		m := description.FindStringSubmatch(d.String())
		if m == nil || strings.HasPrefix(m[1], "go_") || strings.HasPrefix(m[1], "process_") {
			continue
		}
		lines = append(lines, fmt.Sprintf("| `%s` | %s | %s |\n", m[1], strings.ReplaceAll(m[3], ",", ", "), m[2]))
	}
	slices.Sort(lines)
	fmt.Fprint(w, "# Metrics\n\nWritten by `make generate`. Every role serves them at `/metrics` of its operator listener, with the Go runtime's (`go_*`)\n"+
		"and the process's (`process_*`). In `manor dev` one process has all but `mqtt_directory_*`, which `gatewayd` has.\n\n| metric | labels | meaning |\n|---|---|---|\n", strings.Join(lines, ""))
}
