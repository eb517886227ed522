// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/manormq/manor/services/api/client"
)

func quotas() *cobra.Command {
	c := ofAPI(&cobra.Command{Use: "quota", Short: "what a tenant may use, and uses"})
	c.AddCommand(&cobra.Command{
		Use:     "list TENANT",
		Aliases: []string{"show"},
		Short:   "list the quotas of a tenant: the limit, what is used of it now, what is left, and where the limit comes from",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			page, err := c.Quotas(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if page.Held {
				fmt.Fprintln(cmd.ErrOrStderr(), "The installation's policy could not be followed at the last change of the tenant: the limits are those of before.")
			}
			return writeList(cmd, page.Items, "QUOTA LIMIT USAGE HEADROOM SOURCE", func(q client.Quota) []any {
				limit := strconv.FormatInt(q.Limit, 10)
				if q.Limit < 0 {
					limit = "none"
				}
				return []any{q.Name, limit, figure(q.Usage), figure(q.Headroom), q.Source}
			})
		},
	})
	return c
}

// figure writes what may be unknown.
func figure(n *int64) string {
	if n == nil {
		return "-"
	}
	return strconv.FormatInt(*n, 10)
}
