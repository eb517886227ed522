// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/services/api/client"
	"github.com/manormq/manor/tenancy/audit"
)

func auditLog() *cobra.Command {
	c := ofAPI(&cobra.Command{Use: "audit", Short: "who changed what in the organization"})
	c.AddCommand(auditList(), auditExport(), auditVerify())
	return c
}

func auditList() *cobra.Command {
	filters := map[string]*string{}
	var limit int
	list := &cobra.Command{
		Use:   "list",
		Short: "list changes, the newest first",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, organization, err := dialOrganization(cmd)
			if err != nil {
				return err
			}
			options := []client.Option{client.Query("limit", fmt.Sprint(limit))}
			for name, value := range filters {
				options = append(options, client.Query(name, *value))
			}
			page, err := c.Audit(cmd.Context(), organization, options...)
			if err != nil {
				return err
			}
			return writeList(cmd, page.Items, "N AT ACTOR ADDRESS OPERATION TENANT TARGET OUTCOME", func(r client.AuditRecord) []any {
				return []any{r.N, r.At.UTC().Format("2006-01-02 15:04:05"), r.Actor.Kind + " " + r.Actor.ID, r.Address, r.Operation, r.Tenant, r.Target, r.Outcome}
			})
		},
	}
	for name, usage := range map[string]string{
		"actor": "the id of a key or member", "tenant": "the id of a tenant", "operation": "an operation of the API, such as create-api-key",
		"from": "leave out what is earlier, such as 2026-01-31T00:00:00Z", "to": "leave out what is later",
	} {
		filters[name] = list.Flags().String(name, "", usage)
	}
	list.Flags().IntVar(&limit, "limit", 50, "how many, up to 1000")
	return list
}

func auditExport() *cobra.Command {
	return &cobra.Command{
		Use:   "export [FILE]",
		Short: "write every record that is kept, the oldest first, one in JSON a line",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, organization, err := dialOrganization(cmd)
			if err != nil {
				return err
			}
			in, err := c.ExportAudit(cmd.Context(), organization)
			if err != nil {
				return err
			}
			defer func() { _ = in.Close() }()
			if len(args) == 0 {
				_, err = io.Copy(cmd.OutOrStdout(), in)
				return err
			}
			out, err := os.OpenFile(args[0], os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
			if err != nil {
				return errs.New(errs.Invalid, "%w", err)
			}
			_, err = io.Copy(out, in)
			if cerr := out.Close(); err == nil {
				err = cerr
			}
			return err
		},
	}
}

func auditVerify() *cobra.Command {
	var head string
	verify := &cobra.Command{
		Use:   "verify [FILE]",
		Short: "check the hash chain of the log, or of an export here, without the API (- is standard input)",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			result, err := verifyAudit(cmd, args)
			if err != nil {
				return err
			}
			if head != "" && result.Valid && result.Head != head {
				result.Valid, result.Problem = false, "the newest record has another hash than --head"
			}
			human := fmt.Sprintf("whole: records %d to %d, head %s", result.First, result.Last, result.Head)
			if !result.Valid {
				human = "NOT whole: " + result.Problem
			}
			if err := write(cmd, result, human); err != nil {
				return err
			}
			if !result.Valid {
				return errs.New(errs.Conflict, "the audit log was changed")
			}
			return nil
		},
	}
	verify.Flags().StringVar(&head, "head", "", "the hash that the newest record shall have")
	return verify
}

func verifyAudit(cmd *cobra.Command, args []string) (*client.AuditCheck, error) {
	if len(args) == 0 {
		c, organization, err := dialOrganization(cmd)
		if err != nil {
			return nil, err
		}
		return c.VerifyAudit(cmd.Context(), organization)
	}
	in := cmd.InOrStdin()
	if args[0] != "-" {
		file, err := os.Open(args[0])
		if err != nil {
			return nil, errs.New(errs.Invalid, "%w", err)
		}
		defer func() { _ = file.Close() }()
		in = file
	}
	chain, err := audit.VerifyExport(in)
	if err == nil && chain.Last == 0 {
		err = errs.New(errs.Invalid, "there are no records: even a new organization has that of its sign-up")
	}
	result := &client.AuditCheck{Valid: err == nil, First: chain.First, Last: chain.Last, Head: chain.Head}
	if err != nil {
		if !errs.Is(err, errs.Invalid) {
			return nil, err
		}
		result.Problem = err.Error()
	}
	return result, nil
}
