// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"context"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/services/api/client"
)

// apiDefault is where the API is by default, apiEnv and keyEnv the variables that
// say where else, and with what key.
const (
	apiDefault = "http://127.0.0.1:8080"
	apiEnv     = "MANOR_API"
	keyEnv     = "MANOR_API_KEY"
)

// ofAPI makes c a command that calls the API, as those below it do.
func ofAPI(c *cobra.Command) *cobra.Command {
	c.Long = c.Short + ".\n\nThe key of the API, or the token of a member, is read from $" + keyEnv + ", or from the file of --api-key-file: a flag would show it to\n" +
		"everybody on this machine. What may be done is what the key may do."
	f := c.PersistentFlags()
	f.String("api", "", "URL of the API (default $"+apiEnv+", or "+apiDefault+")")
	f.String("api-key-file", "", "file with the API key (default: the key in $"+keyEnv+")")
	return c
}

// dial returns a client as the flags and the environment say.
func dial(cmd *cobra.Command) (*client.Client, error) {
	base, err := cmd.Flags().GetString("api")
	if err != nil {
		return nil, err
	}
	if base == "" {
		base = os.Getenv(apiEnv)
	}
	if base == "" {
		base = apiDefault
	}
	file, err := cmd.Flags().GetString("api-key-file")
	if err != nil {
		return nil, err
	}
	key := os.Getenv(keyEnv)
	if file != "" {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, errs.New(errs.Invalid, "--api-key-file: %w", err)
		}
		key = string(b)
	}
	if key = strings.TrimSpace(key); key == "" {
		return nil, errs.New(errs.Invalid, "expected an API key in $%s or --api-key-file", keyEnv)
	}
	return client.New(client.Config{URL: base, Key: key})
}

// dialOrganization is dial, and the id of the organization of the key.
func dialOrganization(cmd *cobra.Command) (c *client.Client, organization string, err error) {
	if c, err = dial(cmd); err != nil {
		return nil, "", err
	}
	me, err := c.Me(cmd.Context())
	if err != nil {
		return nil, "", err
	}
	return c, me.Organization, nil
}

// every reads all pages of a list.
func every[T any](ctx context.Context, page func(context.Context, ...client.Option) (*client.Page[T], error)) ([]T, error) {
	all, cursor := []T{}, ""
	for {
		p, err := page(ctx, client.Query("cursor", cursor))
		if err != nil {
			return nil, err
		}
		all = append(all, p.Items...)
		if p.Next == nil {
			return all, nil
		}
		cursor = *p.Next
	}
}

// writeList writes all as JSON with -o json, else as a table.
func writeList[T any](cmd *cobra.Command, all []T, header string, row func(T) []any) error {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.ReplaceAll(header, " ", "\t"))
	for _, v := range all {
		cells := row(v)
		for i, c := range cells {
			if i > 0 {
				fmt.Fprint(w, "\t")
			}
			fmt.Fprint(w, c)
		}
		fmt.Fprintln(w)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return write(cmd, map[string]any{"items": all}, strings.TrimSuffix(b.String(), "\n"))
}

// day writes a time to the minute; nil is never.
func day(t *time.Time) string {
	if t == nil {
		return "never"
	}
	return t.UTC().Format("2006-01-02 15:04")
}

// scope writes to what something is limited.
func scope(tenants []string) string {
	if len(tenants) == 0 {
		return "all"
	}
	return strings.Join(tenants, ",")
}

func tenant() *cobra.Command {
	show := &cobra.Command{
		Use:   "show TENANT",
		Short: "show a tenant",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			t, err := c.Tenant(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return write(cmd, t, fmt.Sprintf("%s, on plan %s in region %s, at %s%s", lifeOf(t), t.Plan, t.Region, t.Hostname, grown(t.Cell)))
		},
	}
	var deleted bool
	list := &cobra.Command{
		Use:   "list",
		Short: "list the tenants of the organization",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, organization, err := dialOrganization(cmd)
			if err != nil {
				return err
			}
			all, err := every(cmd.Context(), func(ctx context.Context, o ...client.Option) (*client.Page[client.TenantDetail], error) {
				if deleted {
					o = append(o, client.Query("deleted", "true"))
				}
				return c.OrganizationTenants(ctx, organization, o...)
			})
			if err != nil {
				return err
			}
			if deleted {
				return writeList(cmd, all, "TENANT STATE PLAN UNTIL", func(t client.TenantDetail) []any {
					until := ""
					if t.PurgeAt != nil {
						until = t.PurgeAt.Format(time.RFC3339)
					}
					return []any{t.ID, t.State, t.Plan, until}
				})
			}
			return writeList(cmd, all, "TENANT STATE PLAN REGION HOSTNAME", func(t client.TenantDetail) []any {
				return []any{t.ID, t.State, t.Plan, t.Region, t.Hostname}
			})
		},
	}
	list.Flags().BoolVar(&deleted, "deleted", false, "those that are deleted and can be restored, instead")
	var plan string
	create := &cobra.Command{
		Use:   "create TENANT",
		Short: "make another tenant of the organization; it has no credentials yet",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, organization, err := dialOrganization(cmd)
			if err != nil {
				return err
			}
			t, err := c.CreateTenant(cmd.Context(), organization, client.NewTenant{ID: args[0], Plan: plan})
			if err != nil {
				return err
			}
			return write(cmd, t, fmt.Sprintf("%s is made, on plan %s, at %s", t.ID, t.Plan, t.Hostname))
		},
	}
	create.Flags().StringVar(&plan, "plan", "", "the plan; the installation's default if left out")
	change := &cobra.Command{
		Use:   "plan TENANT PLAN",
		Short: "change the plan of a tenant: its limits, and by itself its partitions, where the plan has more of them",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			t, err := c.ReplacePlan(cmd.Context(), args[0], args[1])
			if err != nil {
				return err
			}
			return write(cmd, t, fmt.Sprintf("%s is on plan %s%s", t.ID, t.Plan, grown(t.Cell)))
		},
	}
	c := ofAPI(&cobra.Command{Use: "tenant", Short: "the tenants of an organization"})
	c.AddCommand(list, show, create, change)
	c.AddCommand(tenantLives()...)
	return c
}

func plans() *cobra.Command {
	list := &cobra.Command{
		Use:   "list",
		Short: "list the plans, and which of them may be chosen; -o json has their quotas",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			all, err := c.Plans(cmd.Context())
			if err != nil {
				return err
			}
			return writeList(cmd, all.Items, "PLAN CHOOSABLE DEFAULT PARTITIONS CONNECTIONS", func(p client.Plan) []any {
				partitions := fmt.Sprint(p.Partitions)
				if p.Partitions == 0 {
					partitions = "all"
				}
				return []any{p.Name, yes(p.Choosable), yes(p.Default), partitions, p.Quotas["connections"]}
			})
		},
	}
	c := ofAPI(&cobra.Command{Use: "plan", Short: "what tenants may have"})
	c.AddCommand(list)
	return c
}

// grown says how far a cell has grown, behind a sentence; nothing of one that is not to.
func grown(c *client.TenantCell) string {
	switch {
	case c == nil:
		return ""
	case c.Waits == "":
		return fmt.Sprintf("; it has %d partitions", c.Has)
	case c.Has == 0:
		return fmt.Sprintf("; it is to have %d partitions: %s", c.Wanted, c.Waits)
	}
	return fmt.Sprintf("; it has %d of %d partitions, and waits: %s", c.Has, c.Wanted, c.Waits)
}

func credential() *cobra.Command {
	list := &cobra.Command{
		Use:   "list TENANT",
		Short: "list the credentials of a tenant",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			all, err := every(cmd.Context(), func(ctx context.Context, o ...client.Option) (*client.Page[client.Credential], error) {
				return c.Credentials(ctx, args[0], o...)
			})
			if err != nil {
				return err
			}
			return writeList(cmd, all, "USERNAME ID SCRAM SOURCE CREATED", func(x client.Credential) []any {
				return []any{x.Username, x.ID, x.SCRAM, x.Source, day(&x.CreatedAt)}
			})
		},
	}
	var passwordFile string
	create := &cobra.Command{
		Use:   "create TENANT USERNAME",
		Short: "make a credential; its password is generated, and shown once, unless --password-file has one",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			in := client.NewCredential{Username: args[1]}
			if passwordFile != "" {
				b, err := os.ReadFile(passwordFile)
				if err != nil {
					return errs.New(errs.Invalid, "--password-file: %w", err)
				}
				password := strings.TrimRight(string(b), "\r\n")
				in.Password = &password
			}
			made, err := c.CreateCredential(cmd.Context(), args[0], in)
			if err != nil {
				return err
			}
			human := made.Username + " is made"
			if made.Password != "" {
				human += "; its password, shown once: " + made.Password
			}
			return write(cmd, made, human)
		},
	}
	create.Flags().StringVar(&passwordFile, "password-file", "", "file with the password")
	remove := &cobra.Command{
		Use:   "delete TENANT USERNAME",
		Short: "delete a credential; its clients are disconnected",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			if err := c.DeleteCredential(cmd.Context(), args[0], args[1]); err != nil {
				return err
			}
			return write(cmd, map[string]string{"deleted": args[1]}, args[1]+" is deleted")
		},
	}
	c := ofAPI(&cobra.Command{Use: "credential", Short: "with what devices connect"})
	c.AddCommand(list, create, remove, importCredentials(), sources())
	c.AddCommand(certificates()...)
	return c
}
