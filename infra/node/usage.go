// SPDX-License-Identifier: Apache-2.0

package node

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/manormq/manor/infra/errs"
)

// StrictUsage makes every wrong use of root and the commands below it an error
// of kind Invalid, which ExitCode maps to 2: flags and arguments that are not
// known, too many or too few, and subcommands that there are not. Call it when
// the commands are complete.
func StrictUsage(root *cobra.Command) {
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return errs.New(errs.Invalid, "%w; see %s --help", err, c.CommandPath())
	})
	strictArgs(root)
}

func strictArgs(c *cobra.Command) {
	if c.HasSubCommands() && !c.Runnable() {
		c.Args = func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			hint := ""
			c.SuggestionsMinimumDistance = 2
			if near := c.SuggestionsFor(args[0]); len(near) > 0 {
				hint = "; did you mean " + strings.Join(near, " or ") + "?"
			}
			return fmt.Errorf("unknown command %q%s", args[0], hint)
		}
		c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	}
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return errs.New(errs.Invalid, "%w; see %s --help", err, c.CommandPath())
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		strictArgs(sub)
	}
}
