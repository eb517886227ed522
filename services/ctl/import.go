// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/services/api/client"
)

// importMax is how many credentials one call of the API takes.
const importMax = 100_000

// importPoll is how much time is between two looks at an import.
const importPoll = time.Second

func importCredentials() *cobra.Command {
	return &cobra.Command{
		Use:   "import TENANT FILE",
		Short: "make credentials of a file with username:hash on each line, as htpasswd -B and vmq-passwd write it (- is standard input)",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			in := cmd.InOrStdin()
			if args[1] != "-" {
				file, err := os.Open(args[1])
				if err != nil {
					return errs.New(errs.Invalid, "%w", err)
				}
				defer func() { _ = file.Close() }()
				in = file
			}
			items, err := readHashes(in)
			if err != nil {
				return err
			}
			var sum client.Operation
			for len(items) > 0 {
				n := min(len(items), importMax)
				o, err := importAll(cmd.Context(), c, args[0], items[:n])
				if err != nil {
					return err
				}
				sum.Total, sum.Made, sum.Skipped, sum.Failed = sum.Total+o.Total, sum.Made+o.Made, sum.Skipped+o.Skipped, sum.Failed+o.Failed
				if sum.State = o.State; sum.Problem == "" {
					sum.Problem = o.Problem
				}
				if o.State != "done" {
					break
				}
				items = items[n:]
			}
			human := fmt.Sprintf("%s: %d made, %d there already, %d failed %s", sum.State, sum.Made, sum.Skipped, sum.Failed, sum.Problem)
			if err := write(cmd, sum, strings.TrimSpace(human)); err != nil {
				return err
			}
			if sum.State != "done" || sum.Failed > 0 {
				return errs.New(errs.Unavailable, "not all credentials are made; import the file again, what is made is skipped")
			}
			return nil
		},
	}
}

// importAll imports what one call takes, and waits for its end.
func importAll(ctx context.Context, c *client.Client, tenant string, items []client.ImportItem) (*client.Operation, error) {
	o, err := c.ImportCredentials(ctx, tenant, client.Import{Items: items})
	for err == nil && o.State == "running" {
		select {
		case <-time.After(importPoll):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		o, err = c.Operation(ctx, tenant, o.ID)
	}
	return o, err
}

// readHashes reads lines of username:hash; those that are empty or begin with #
// are left out. The hash begins at the last ":$", since names may have colons.
func readHashes(r io.Reader) ([]client.ImportItem, error) {
	var items []client.ImportItem
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		i := strings.LastIndex(line, ":$")
		if i <= 0 {
			return nil, errs.New(errs.Invalid, "line %d: expected username:hash, with a hash that begins with $argon2id$, $2b$, $6$ or $sha256$", n)
		}
		items = append(items, client.ImportItem{Username: line[:i], Hash: line[i+1:]})
	}
	if len(items) == 0 && lines.Err() == nil {
		return nil, errs.New(errs.Invalid, "expected lines with username:hash")
	}
	return items, lines.Err()
}
