// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/services/api/client"
)

func organization() *cobra.Command {
	show := &cobra.Command{
		Use:   "show",
		Short: "show the organization, and what the key may do",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			me, err := c.Me(cmd.Context())
			if err != nil {
				return err
			}
			may := "role " + me.Role
			if me.Role == "" {
				may = strings.Join(me.Permissions, ", ")
			}
			return write(cmd, me, fmt.Sprintf("organization %s; %s %s, with %s, tenants %s, until %s", me.Organization, me.Kind, me.ID, may, scope(me.Tenants), day(me.ExpiresAt)))
		},
	}
	var name, email string
	update := &cobra.Command{
		Use:   "update",
		Short: "change the name, or the address, of the organization",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, id, err := dialOrganization(cmd)
			if err != nil {
				return err
			}
			var in client.OrganizationUpdate
			if cmd.Flags().Changed("name") {
				in.Name = &name
			}
			if cmd.Flags().Changed("email") {
				in.Email = &email
			}
			o, err := c.UpdateOrganization(cmd.Context(), id, in)
			if err != nil {
				return err
			}
			return write(cmd, o, fmt.Sprintf("%s is %s, %s", o.ID, o.Name, o.Email))
		},
	}
	update.Flags().StringVar(&name, "name", "", "the new name")
	update.Flags().StringVar(&email, "email", "", "the new address")
	roles := &cobra.Command{
		Use:   "roles",
		Short: "list the roles, and what each may do",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, id, err := dialOrganization(cmd)
			if err != nil {
				return err
			}
			all, err := c.Roles(cmd.Context(), id)
			if err != nil {
				return err
			}
			return writeList(cmd, all.Items, "ROLE PERMISSIONS", func(r client.Role) []any { return []any{r.Name, strings.Join(r.Permissions, " ")} })
		},
	}
	remove := &cobra.Command{
		Use:   "delete ORGANIZATION",
		Short: "delete the organization of the key, which has no tenants any more, with its members and keys, also this one",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, id, err := dialOrganization(cmd)
			if err != nil {
				return err
			}
			if args[0] != id {
				return errs.New(errs.Invalid, "expected the id of the key's own organization, %s, found %s: nothing was done", id, args[0])
			}
			if err := c.DeleteOrganization(cmd.Context(), id); err != nil {
				return err
			}
			return write(cmd, map[string]string{"deleted": id}, id+" is deleted")
		},
	}
	c := ofAPI(&cobra.Command{Use: "organization", Short: "the organization of the key"})
	c.AddCommand(show, update, roles, meant(remove))
	return c
}

func member() *cobra.Command {
	list := &cobra.Command{
		Use:   "list",
		Short: "list members",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, organization, err := dialOrganization(cmd)
			if err != nil {
				return err
			}
			all, err := every(cmd.Context(), func(ctx context.Context, o ...client.Option) (*client.Page[client.Member], error) {
				return c.Members(ctx, organization, o...)
			})
			if err != nil {
				return err
			}
			return writeList(cmd, all, "MEMBER EMAIL ROLE TENANTS STATE", func(m client.Member) []any {
				return []any{m.ID, m.Email, m.Role, scope(m.Tenants), m.State}
			})
		},
	}
	var role string
	var tenants []string
	access := func(c *cobra.Command) {
		c.Flags().StringVar(&role, "role", "", "owner, admin, developer, billing or viewer")
		c.Flags().StringSliceVar(&tenants, "tenant", nil, "a tenant to which the member is limited; again for more (default: none)")
		c.PreRunE = func(*cobra.Command, []string) error {
			if role == "" {
				return errs.New(errs.Invalid, "--role: expected owner, admin, developer, billing or viewer")
			}
			return nil
		}
	}
	invite := &cobra.Command{
		Use:   "invite EMAIL",
		Short: "invite a member",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, organization, err := dialOrganization(cmd)
			if err != nil {
				return err
			}
			m, err := c.InviteMember(cmd.Context(), organization, client.Invite{Email: args[0], MemberAccess: client.MemberAccess{Role: role, Tenants: tenants}})
			if err != nil {
				return err
			}
			human := fmt.Sprintf("%s is invited as %s; a mail says how to accept", m.Email, m.Role)
			if m.Invitation != "" {
				human = fmt.Sprintf("%s is invited as %s; the invitation, shown once: %s", m.Email, m.Role, m.Invitation)
			}
			return write(cmd, m, human)
		},
	}
	access(invite)
	update := &cobra.Command{
		Use:   "update MEMBER",
		Short: "change what a member may do",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, organization, err := dialOrganization(cmd)
			if err != nil {
				return err
			}
			m, err := c.UpdateMember(cmd.Context(), organization, args[0], client.MemberAccess{Role: role, Tenants: tenants})
			if err != nil {
				return err
			}
			return write(cmd, m, fmt.Sprintf("%s is %s, tenants %s", m.Email, m.Role, scope(m.Tenants)))
		},
	}
	access(update)
	remove := &cobra.Command{
		Use:   "remove MEMBER",
		Short: "remove a member, who is signed out",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, organization, err := dialOrganization(cmd)
			if err != nil {
				return err
			}
			if err := c.RemoveMember(cmd.Context(), organization, args[0]); err != nil {
				return err
			}
			return write(cmd, map[string]string{"removed": args[0]}, args[0]+" is removed")
		},
	}
	c := ofAPI(&cobra.Command{Use: "member", Short: "people of the organization"})
	c.AddCommand(list, invite, update, remove)
	return c
}

func key() *cobra.Command {
	list := &cobra.Command{
		Use:   "list",
		Short: "list API keys",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, organization, err := dialOrganization(cmd)
			if err != nil {
				return err
			}
			all, err := every(cmd.Context(), func(ctx context.Context, o ...client.Option) (*client.Page[client.APIKey], error) {
				return c.APIKeys(ctx, organization, o...)
			})
			if err != nil {
				return err
			}
			return writeList(cmd, all, "KEY NAME MAY TENANTS EXPIRES LAST-USED FROM", func(k client.APIKey) []any {
				may := k.Role
				if may == "" {
					may = strings.Join(k.Permissions, ",")
				}
				return []any{k.ID, k.Name, may, scope(k.Tenants), day(k.ExpiresAt), day(k.LastUsedAt), k.LastUsedFrom}
			})
		},
	}
	var in client.NewAPIKey
	var expires time.Duration
	create := &cobra.Command{
		Use:   "create NAME",
		Short: "make an API key, which may do no more than the one that makes it",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, organization, err := dialOrganization(cmd)
			if err != nil {
				return err
			}
			in.Name = args[0]
			if expires < 0 {
				return errs.New(errs.Invalid, "--expires: expected a time like 720h, found %v", expires)
			}
			if expires > 0 {
				at := time.Now().Add(expires).UTC()
				in.ExpiresAt = &at
			}
			k, err := c.CreateAPIKey(cmd.Context(), organization, in)
			if err != nil {
				return err
			}
			return write(cmd, k, k.ID+" is made; its secret, shown once: "+k.Secret)
		},
	}
	f := create.Flags()
	f.StringVar(&in.Role, "role", "", "owner, admin, developer, billing or viewer; or else --permission")
	f.StringSliceVar(&in.Permissions, "permission", nil, "what it may do, such as usage:read; again for more")
	f.StringSliceVar(&in.Tenants, "tenant", nil, "a tenant to which it is limited; again for more (default: none)")
	f.DurationVar(&expires, "expires", 0, "after what time it ends, such as 720h (default: never)")
	var overlap time.Duration
	rotate := &cobra.Command{
		Use:   "rotate KEY",
		Short: "give an API key another secret, beside which the old one holds for a while",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, organization, err := dialOrganization(cmd)
			if err != nil {
				return err
			}
			k, err := c.RotateAPIKey(cmd.Context(), organization, args[0], client.Rotate{Overlap: overlap.String()})
			if err != nil {
				return err
			}
			human := k.ID + " has another secret, shown once: " + k.Secret
			if k.PreviousUntil != nil {
				human += "\nthe old one holds until " + day(k.PreviousUntil)
			}
			return write(cmd, k, human)
		},
	}
	rotate.Flags().DurationVar(&overlap, "overlap", 24*time.Hour, "for how long the old secret holds too, up to 720h")
	remove := &cobra.Command{
		Use:   "delete KEY",
		Short: "delete an API key, which ends at once",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, organization, err := dialOrganization(cmd)
			if err != nil {
				return err
			}
			if err := c.DeleteAPIKey(cmd.Context(), organization, args[0]); err != nil {
				return err
			}
			return write(cmd, map[string]string{"deleted": args[0]}, args[0]+" is deleted")
		},
	}
	c := ofAPI(&cobra.Command{Use: "key", Short: "API keys of the organization"})
	c.AddCommand(list, create, rotate, remove)
	return c
}
