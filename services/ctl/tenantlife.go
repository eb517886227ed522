// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/services/api/client"
)

// tenantLives are the commands that take a tenant from one state to another.
func tenantLives() []*cobra.Command {
	var reason string
	suspend := lifeCommand("suspend", "let no client of a tenant in, and end the connections of those that are there; everything is kept",
		func(ctx context.Context, c *client.Client, tenant string) (*client.TenantDetail, error) {
			return c.SuspendTenant(ctx, tenant, reason)
		})
	suspend.Flags().StringVar(&reason, "reason", "", "why, which its clients are told too")
	resume := lifeCommand("resume", "let the clients of a suspended tenant in again",
		func(ctx context.Context, c *client.Client, tenant string) (*client.TenantDetail, error) {
			return c.ResumeTenant(ctx, tenant)
		})
	remove := meant(lifeCommand("delete", "delete a tenant, which can be restored until the grace time of the installation is over",
		func(ctx context.Context, c *client.Client, tenant string) (*client.TenantDetail, error) {
			return nil, c.DeleteTenant(ctx, tenant)
		}))
	restore := lifeCommand("restore", "bring a deleted tenant back",
		func(ctx context.Context, c *client.Client, tenant string) (*client.TenantDetail, error) {
			return c.RestoreTenant(ctx, tenant)
		})
	purge := meant(lifeCommand("purge", "have all be removed that a deleted tenant has, now and for ever",
		func(ctx context.Context, c *client.Client, tenant string) (*client.TenantDetail, error) {
			return c.PurgeTenant(ctx, tenant)
		}))
	return []*cobra.Command{tenantUpdate(), suspend, resume, remove, restore, purge}
}

// lifeCommand does something to a tenant, and says what it is then.
func lifeCommand(verb, short string, do func(context.Context, *client.Client, string) (*client.TenantDetail, error)) *cobra.Command {
	return &cobra.Command{
		Use:   verb + " TENANT",
		Short: short,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			t, err := do(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			if t == nil {
				return write(cmd, map[string]string{"deleted": args[0]}, args[0]+" is deleted: tenant restore brings it back, tenant list --deleted says until when")
			}
			return write(cmd, t, lifeOf(t))
		},
	}
}

// lifeOf says what state a tenant is in.
func lifeOf(t *client.TenantDetail) string {
	switch {
	case t.PurgeAt != nil:
		return fmt.Sprintf("%s is %s; what it has is removed from %s on", t.ID, t.State, day(t.PurgeAt))
	case t.StateReason != "":
		return fmt.Sprintf("%s is %s: %s", t.ID, t.State, t.StateReason)
	}
	return fmt.Sprintf("%s is %s", t.ID, t.State)
}

// meant has a command do nothing before it was said again that it is meant: by --yes, or by
// the id on a line of the standard input.
func meant(c *cobra.Command) *cobra.Command {
	yes := c.Flags().Bool("yes", false, "it is meant; else the id is asked for")
	do := c.RunE
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if !*yes {
			fmt.Fprintf(cmd.ErrOrStderr(), "%s %s: type the id to go on: ", cmd.Name(), args[0])
			line, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
			if strings.TrimSpace(line) != args[0] {
				if err != nil && line == "" {
					return errs.New(errs.Invalid, "expected --yes, or the id %s on the standard input: nothing was done", args[0])
				}
				return errs.New(errs.Invalid, "expected the id %s, found %q: nothing was done", args[0], strings.TrimSpace(line))
			}
		}
		return do(cmd, args)
	}
	return c
}

// tenantUpdate changes what can be changed of a tenant.
func tenantUpdate() *cobra.Command {
	var name string
	var protect bool
	c := &cobra.Command{
		Use:   "update TENANT",
		Short: "change a tenant's name for people, or whether it is protected from being deleted",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			in := client.TenantUpdate{}
			if cmd.Flags().Changed("name") {
				in.DisplayName = &name
			}
			if cmd.Flags().Changed("protect") {
				in.DeletionProtection = &protect
			}
			if in == (client.TenantUpdate{}) {
				return errs.New(errs.Invalid, "expected --name or --protect")
			}
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			t, err := c.UpdateTenant(cmd.Context(), args[0], in)
			if err != nil {
				return err
			}
			human := t.ID + " is changed; it can be deleted"
			if t.DeletionProtection {
				human = t.ID + " is changed; it cannot be deleted"
			}
			return write(cmd, t, human)
		},
	}
	c.Flags().StringVar(&name, "name", "", "the name for people; empty takes it away")
	c.Flags().BoolVar(&protect, "protect", false, "whether it cannot be deleted: --protect, or --protect=false")
	return c
}
