// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"bufio"
	"context"
	"fmt"
	"io"
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
	var replace bool
	c := &cobra.Command{
		Use:   "import TENANT FILE",
		Short: "make credentials of a file with username:hash on each line, as htpasswd -B and vmq-passwd write it (- is standard input)",
		Long: "Make credentials of a file with username:hash on each line, as htpasswd -B and vmq-passwd write it (- is standard input).\n" +
			"Those that are there stay as they are. With --replace the file is the whole of those that come from a file: new ones are made,\n" +
			"others changed, and those that are gone are deleted; what was made otherwise stays.",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			text, err := readText(cmd, args[1])
			if err != nil {
				return err
			}
			var sum *client.Operation
			if replace {
				sum, err = c.ReplacePasswdSource(cmd.Context(), args[0], text)
				sum, err = awaited(cmd.Context(), c, args[0], sum, err)
			} else {
				sum, err = importLines(cmd.Context(), c, args[0], text)
			}
			if err != nil {
				return err
			}
			human := fmt.Sprintf("%s: %d made, %d there already, %d failed %s", sum.State, sum.Made, sum.Skipped, sum.Failed, sum.Problem)
			if replace {
				human = fmt.Sprintf("%s: %d users, %d left as the API made them, %d failed %s", sum.State, sum.Made, sum.Skipped, sum.Failed, sum.Problem)
			}
			if err := write(cmd, sum, strings.TrimSpace(human)); err != nil {
				return err
			}
			if sum.State != "done" || sum.Failed > 0 {
				return errs.New(errs.Unavailable, "not all credentials are made; import the file again, what is made is skipped")
			}
			return nil
		},
	}
	c.Flags().BoolVar(&replace, "replace", false, "the file is the whole of the credentials that come from a file")
	return c
}

// importLines makes the credentials of a file, in as many calls as it takes.
func importLines(ctx context.Context, c *client.Client, tenant, text string) (*client.Operation, error) {
	items, err := readHashes(strings.NewReader(text))
	if err != nil {
		return nil, err
	}
	sum := &client.Operation{}
	for len(items) > 0 {
		n := min(len(items), importMax)
		o, err := importAll(ctx, c, tenant, items[:n])
		if err != nil {
			return nil, err
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
	return sum, nil
}

// importAll imports what one call takes, and waits for its end.
func importAll(ctx context.Context, c *client.Client, tenant string, items []client.ImportItem) (*client.Operation, error) {
	o, err := c.ImportCredentials(ctx, tenant, client.Import{Items: items})
	return awaited(ctx, c, tenant, o, err)
}

// awaited waits for the end of an operation that was begun.
func awaited(ctx context.Context, c *client.Client, tenant string, o *client.Operation, err error) (*client.Operation, error) {
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
		line := strings.TrimSpace(strings.TrimPrefix(lines.Text(), "\uFEFF")) // some editors begin a file with it
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
