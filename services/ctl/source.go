// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/manormq/manor/services/api/client"
)

func sources() *cobra.Command {
	return apiCommand("sources TENANT", "what became of the operator's files that credentials and the policy come from", cobra.ExactArgs(1), func(cmd *cobra.Command, c *client.Client, args []string) error {
		all, err := c.Sources(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return writeList(cmd, all.Items, "KIND APPLIED CONTENT PROBLEM", func(s client.Source) []any {
			content := fmt.Sprintf("%d users, %d skipped", s.Users, s.Skipped)
			if s.Kind == "vmq_acl" {
				content = fmt.Sprintf("revision %d", s.Revision)
			}
			return []any{s.Kind, day(s.AppliedAt), content, s.Problem}
		})
	})
}
