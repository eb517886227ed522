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

func ban() *cobra.Command {
	list := &cobra.Command{
		Use:   "list TENANT",
		Short: "list the bans that hold now",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			all, err := every(cmd.Context(), func(ctx context.Context, o ...client.Option) (*client.Page[client.Ban], error) {
				return c.Bans(ctx, args[0], o...)
			})
			if err != nil {
				return err
			}
			return writeList(cmd, all, "BAN KIND VALUE UNTIL AUTOMATIC REASON", func(b client.Ban) []any {
				return []any{b.ID, b.Kind, b.Value, day(b.ExpiresAt), b.Automatic, b.Reason}
			})
		},
	}
	var reason string
	var during time.Duration
	create := &cobra.Command{
		Use:   "create TENANT KIND VALUE",
		Short: "ban a client_id, username, address (or network) or certificate; its connections end",
		Args:  cobra.ExactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			if during < 0 {
				return errs.New(errs.Invalid, "--for: expected a time like 1h, found %v", during)
			}
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			in := client.NewBan{Kind: args[1], Value: args[2], Reason: reason}
			if during > 0 {
				end := time.Now().Add(during).UTC().Truncate(time.Second)
				in.ExpiresAt = &end
			}
			b, err := c.CreateBan(cmd.Context(), args[0], in)
			if err != nil {
				return err
			}
			until := ""
			if b.ExpiresAt != nil {
				until = " until " + day(b.ExpiresAt)
			}
			return write(cmd, b, fmt.Sprintf("%s %s is banned%s (%s)", b.Kind, b.Value, until, b.ID))
		},
	}
	create.Flags().StringVar(&reason, "reason", "", "why, which the client is told")
	create.Flags().DurationVar(&during, "for", 0, "for how long, such as 1h; 0 is for ever")
	remove := &cobra.Command{
		Use:   "delete TENANT BAN",
		Short: "end a ban",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			if err := c.DeleteBan(cmd.Context(), args[0], args[1]); err != nil {
				return err
			}
			return write(cmd, map[string]string{"deleted": args[1]}, args[1]+" is over")
		},
	}
	c := ofAPI(&cobra.Command{Use: "ban", Short: "keep clients out, and end that"})
	c.AddCommand(list, create, remove, flapping())
	return c
}

func flapping() *cobra.Command {
	var rule client.FlappingRule
	var off bool
	c := &cobra.Command{
		Use:   "flapping TENANT",
		Short: "show when a client id is banned that connects again and again, or change that with flags",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			var now *client.Flapping
			switch {
			case off:
				now, err = c.ReplaceFlapping(cmd.Context(), args[0], client.Flapping{})
			case rule != client.FlappingRule{}:
				now, err = c.ReplaceFlapping(cmd.Context(), args[0], client.Flapping{Rule: &rule})
			default:
				now, err = c.Flapping(cmd.Context(), args[0])
			}
			if err != nil {
				return err
			}
			human := "nobody is banned for that"
			if r := now.Rule; r != nil {
				human = fmt.Sprintf("more than %d connects in %d s: banned for %d s, and twice as long each time", r.Connects, r.Window, r.Ban)
			}
			return write(cmd, now, human)
		},
	}
	c.Flags().IntVar(&rule.Connects, "connects", 0, "how many CONNECTs are let in")
	c.Flags().IntVar(&rule.Window, "window", 0, "within how many seconds")
	c.Flags().IntVar(&rule.Ban, "ban", 0, "for how many seconds the first ban holds")
	c.Flags().BoolVar(&off, "off", false, "ban nobody for that")
	return c
}

func authMethod() *cobra.Command {
	list := &cobra.Command{
		Use:   "list TENANT",
		Short: "list the methods by which clients show who they are, in their order",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			now, err := c.AuthMethods(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return write(cmd, now, strings.Join(now.Methods, "\n"))
		},
	}
	set := &cobra.Command{
		Use:   "set TENANT METHOD...",
		Short: "replace the methods, and their order: certificate, jwt, password, scram",
		Args:  cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			now, err := c.ReplaceAuthMethods(cmd.Context(), args[0], client.AuthMethods{Methods: args[1:]})
			if err != nil {
				return err
			}
			return write(cmd, now, strings.Join(now.Methods, "\n"))
		},
	}
	c := ofAPI(&cobra.Command{Use: "auth-method", Short: "how clients show who they are, and from where"})
	c.AddCommand(list, set, issuer(), allowList())
	return c
}

func allowList() *cobra.Command {
	var in client.AllowLists
	var off bool
	c := &cobra.Command{
		Use:   "allow-list TENANT",
		Short: "show from where the tenant may be reached, or replace both lists with flags",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			var now *client.AllowLists
			if off || len(in.MQTT)+len(in.API) > 0 {
				now, err = c.ReplaceAllowLists(cmd.Context(), args[0], in)
			} else {
				now, err = c.AllowLists(cmd.Context(), args[0])
			}
			if err != nil {
				return err
			}
			from := func(all []string) string {
				if len(all) == 0 {
					return "everywhere"
				}
				return strings.Join(all, ", ")
			}
			return write(cmd, now, "mqtt: "+from(now.MQTT)+"\napi: "+from(now.API))
		},
	}
	c.Flags().StringSliceVar(&in.MQTT, "mqtt", nil, "networks and addresses from which clients may connect")
	c.Flags().StringSliceVar(&in.API, "for-api", nil, "networks and addresses from which requests about the tenant may come")
	c.Flags().BoolVar(&off, "off", false, "replace what is given no flag by everywhere")
	return c
}

func issuer() *cobra.Command {
	list := &cobra.Command{
		Use:   "list TENANT",
		Short: "list the issuers whose tokens are taken",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			all, err := c.Issuers(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return writeIssuers(cmd, all.Items)
		},
	}
	var in client.JWTIssuer
	add := &cobra.Command{
		Use:   "add TENANT ISSUER",
		Short: "take the tokens of one more issuer, or change what is taken of it",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			in.Issuer = args[1]
			return changeIssuers(cmd, args, func(kept []client.JWTIssuer, _ bool) ([]client.JWTIssuer, error) { return append(kept, in), nil })
		},
	}
	add.Flags().StringSliceVar(&in.Audience, "audience", nil, "values of the claim aud, of which a token must have one")
	add.Flags().StringVar(&in.JWKSURL, "jwks-url", "", "where its keys are")
	add.Flags().StringSliceVar(&in.Algorithms, "algorithm", nil, "with which tokens may be signed; all that are known if left out")
	add.Flags().StringVar(&in.UsernameClaim, "username-claim", "", "the claim that is the user name; sub if left out")
	add.Flags().StringVar(&in.ClientIDClaim, "client-id-claim", "", "a claim that must be the client id")
	add.Flags().StringVar(&in.PublishClaim, "publish-claim", "", "a claim with the topic filters that may be published to")
	add.Flags().StringVar(&in.SubscribeClaim, "subscribe-claim", "", "a claim with the topic filters that may be subscribed to")
	remove := &cobra.Command{
		Use:   "delete TENANT ISSUER",
		Short: "take the tokens of an issuer no more; connections by them end",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return changeIssuers(cmd, args, func(kept []client.JWTIssuer, known bool) ([]client.JWTIssuer, error) {
				if !known {
					return nil, errs.New(errs.NotFound, "there is no issuer %q", args[1])
				}
				return kept, nil
			})
		},
	}
	c := &cobra.Command{Use: "issuer", Short: "whose tokens (JWT) are taken as passwords"}
	c.AddCommand(list, add, remove)
	return c
}

func writeIssuers(cmd *cobra.Command, all []client.IssuerDetail) error {
	return writeList(cmd, all, "ISSUER AUDIENCE KEYS FETCHED PROBLEM", func(i client.IssuerDetail) []any {
		fetched := "inline"
		if i.JWKSURL != "" {
			fetched = day(i.Keys.FetchedAt)
		}
		return []any{i.Issuer, strings.Join(i.Audience, ","), strings.Join(i.Keys.IDs, ","), fetched, i.Keys.Problem}
	})
}

// changeIssuers replaces the issuers of a tenant by what f makes of those other than the
// one that is named; known says that this one is there.
func changeIssuers(cmd *cobra.Command, args []string, f func(kept []client.JWTIssuer, known bool) ([]client.JWTIssuer, error)) error {
	c, err := dial(cmd)
	if err != nil {
		return err
	}
	now, err := c.Issuers(cmd.Context(), args[0])
	if err != nil {
		return err
	}
	in, known := client.Issuers{Items: []client.JWTIssuer{}}, false
	for _, i := range now.Items {
		if i.Issuer == args[1] {
			known = true
			continue
		}
		in.Items = append(in.Items, i.JWTIssuer)
	}
	if in.Items, err = f(in.Items, known); err != nil {
		return err
	}
	out, err := c.ReplaceIssuers(cmd.Context(), args[0], in)
	if err != nil {
		return err
	}
	return writeIssuers(cmd, out.Items)
}
