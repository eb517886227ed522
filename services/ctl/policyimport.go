// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/services/api/client"
)

// readText reads a file; - is standard input.
func readText(cmd *cobra.Command, name string) (string, error) {
	var b []byte
	var err error
	if name == "-" {
		b, err = io.ReadAll(cmd.InOrStdin())
	} else {
		b, err = os.ReadFile(name)
	}
	if err != nil {
		return "", errs.New(errs.Invalid, "%w", err)
	}
	return string(b), nil
}

func importPolicy() *cobra.Command {
	var in client.PolicyImport
	var dry, print bool
	c := apiCommand("import TENANT FILE", "make a revision of the ACL file of another broker, as Rego that can be edited; a line that is not understood is refused with its number (- is standard input)",
		cobra.ExactArgs(2), func(cmd *cobra.Command, c *client.Client, args []string) (err error) {
			if in.Text, err = readText(cmd, args[1]); err != nil {
				return err
			}
			var o []client.Option
			if dry {
				o = append(o, client.Query("dry_run", "true"))
			}
			made, err := c.ImportPolicy(cmd.Context(), args[0], in, o...)
			if err != nil {
				return faults(cmd, err)
			}
			for _, n := range made.Notes {
				fmt.Fprintf(cmd.ErrOrStderr(), "line %d: %s\n", n.Line, n.Message)
			}
			human := fmt.Sprintf("revision %d is %s: %d grants; manor policy show %s %d writes its text", made.Revision, made.State, made.Grants, args[0], made.Revision)
			if dry {
				human = fmt.Sprintf("the file is good: %d grants", made.Grants)
			}
			if print {
				human = strings.TrimRight(made.Files["policy.rego"], "\n")
			}
			return write(cmd, made, human)
		})
	f := c.Flags()
	f.StringVar(&in.Format, "format", "vmq_acl", "what the file is: vmq_acl")
	f.StringVar(&in.Description, "description", "", "what the revision is for")
	f.StringVar(&in.OnRevoke, "on-revoke", "", "what becomes of connections that hold subscriptions which are not granted any more: unsubscribe or disconnect (default: as before, at first unsubscribe)")
	f.BoolVar(&in.Shadow, "shadow", false, "do not make it live, but see what it would decide (manor policy shadow)")
	f.BoolVar(&dry, "dry-run", false, "check everything, change nothing")
	f.BoolVar(&print, "print", false, "write the policy that was made of the file")
	return c
}
