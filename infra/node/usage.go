// SPDX-License-Identifier: Apache-2.0

package node

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/manormq/manor/infra/errs"
)

// StrictUsage makes every wrong use of root and the commands below it an error
// of kind Invalid, which ExitCode maps to 2: flags and arguments that are not
// known, too many or too few, and subcommands that there are not. Call it when
// the commands are complete.
func StrictUsage(root *cobra.Command) {
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		if unknown, ok := errors.AsType[*unknownCommandError](err); ok {
			err = unknown
		}
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
			return unknownCommand(c, args[0])
		}
		c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
		c.InitDefaultHelpFlag()
		help := c.Flags().Lookup("help")
		help.Value = &helpOfAGroup{help.Value, c}
	}
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return errs.New(errs.Invalid, "%w%s; see %s --help", err, expectedArgs(c), c.CommandPath())
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		strictArgs(sub)
	}
}

// expectedArgs says what arguments a command takes, by its use line, empty if it takes none.
func expectedArgs(c *cobra.Command) string {
	if _, args, takes := strings.Cut(c.Use, " "); takes && !c.HasSubCommands() {
		return ": expected " + c.CommandPath() + " " + args
	}
	return ""
}

// unknownCommandError says that a group has no such command.
type unknownCommandError struct{ text string }

func (e *unknownCommandError) Error() string { return e.text }

func unknownCommand(c *cobra.Command, name string) error {
	hint := ""
	c.SuggestionsMinimumDistance = 2
	if near := c.SuggestionsFor(name); len(near) > 0 {
		hint = "; did you mean " + strings.Join(near, " or ") + "?"
	}
	return &unknownCommandError{fmt.Sprintf("unknown command %q%s", name, hint)}
}

// helpOfAGroup is the flag --help of a command with subcommands. Behind the name of one that
// there is not, it is an error: cobra shows the help of the group, as if all was well.
type helpOfAGroup struct {
	pflag.Value
	group *cobra.Command
}

// Set implements pflag.Value. What stands before the flag has been read by then.
func (h *helpOfAGroup) Set(s string) error {
	if args := h.group.Flags().Args(); len(args) > 0 {
		return unknownCommand(h.group, args[0])
	}
	return h.Value.Set(s)
}

// IsBoolFlag has the flag need no value, as the one within.
func (h *helpOfAGroup) IsBoolFlag() bool { return true }
