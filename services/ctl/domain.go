// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/services/api/client"
)

// domain are the commands about custom domains.
func domain() *cobra.Command {
	c := ofAPI(&cobra.Command{Use: "domain", Short: "a tenant's own host names, and their certificates"})
	list := &cobra.Command{
		Use:   "list TENANT",
		Short: "list the domains of a tenant",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			all, err := every(cmd.Context(), func(ctx context.Context, o ...client.Option) (*client.Page[client.Domain], error) {
				return c.Domains(ctx, args[0], o...)
			})
			if err != nil {
				return err
			}
			return writeList(cmd, all, "DOMAIN STATE CERTIFICATE UNTIL", func(d client.Domain) []any {
				until := "-"
				if d.NotAfter != nil {
					until = day(d.NotAfter)
				}
				return []any{d.FQDN, d.State, d.Certificate, until}
			})
		},
	}
	var uploaded bool
	create := &cobra.Command{
		Use:   "create TENANT DOMAIN",
		Short: "claim a domain, and show what to make in the DNS",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			in := client.NewDomain{FQDN: args[1], Certificate: "acme"}
			if uploaded {
				in.Certificate = "uploaded"
			}
			d, err := c.CreateDomain(cmd.Context(), args[0], in)
			if err != nil {
				return err
			}
			return write(cmd, d, domainText(d))
		},
	}
	create.Flags().BoolVar(&uploaded, "uploaded", false, "its certificate is uploaded (manor domain upload), not issued by the installation's certificate authority")
	remove := &cobra.Command{
		Use:   "delete TENANT DOMAIN",
		Short: "delete a domain; clients that name it are refused within 2 s",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			if err := c.DeleteDomain(cmd.Context(), args[0], args[1]); err != nil {
				return err
			}
			return write(cmd, map[string]string{"deleted": args[1]}, args[1]+" is deleted")
		},
	}
	upload := &cobra.Command{
		Use:   "upload TENANT DOMAIN CHAIN KEY",
		Short: "replace the certificate of a domain by that of two files in PEM: the chain, the server's first, and its key",
		Args:  cobra.ExactArgs(4),
		RunE: func(cmd *cobra.Command, args []string) error {
			chain, err := os.ReadFile(args[2])
			if err != nil {
				return errs.New(errs.Invalid, "%w", err)
			}
			key, err := os.ReadFile(args[3])
			if err != nil {
				return errs.New(errs.Invalid, "%w", err)
			}
			return aboutDomain(cmd, func(ctx context.Context, c *client.Client) (*client.Domain, error) {
				return c.ReplaceDomainCertificate(ctx, args[0], args[1], client.Certificate{Chain: string(chain), Key: string(key)})
			})
		},
	}
	c.AddCommand(list, create, remove, upload,
		domainCommand("show", "show a domain", func(ctx context.Context, c *client.Client, tenant, name string) (*client.Domain, error) {
			return c.Domain(ctx, tenant, name)
		}),
		domainCommand("verify", "look whether the DNS has the domain's challenge; then its certificate is issued", func(ctx context.Context, c *client.Client, tenant, name string) (*client.Domain, error) {
			return c.VerifyDomain(ctx, tenant, name)
		}),
		domainCommand("renew", "have the certificate of a domain issued anew, within seconds", func(ctx context.Context, c *client.Client, tenant, name string) (*client.Domain, error) {
			return c.RenewDomain(ctx, tenant, name)
		}))
	return c
}

// domainCommand is a command that does something with a domain and shows it.
func domainCommand(name, short string, f func(ctx context.Context, c *client.Client, tenant, domain string) (*client.Domain, error)) *cobra.Command {
	return &cobra.Command{
		Use: name + " TENANT DOMAIN", Short: short, Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return aboutDomain(cmd, func(ctx context.Context, c *client.Client) (*client.Domain, error) {
				return f(ctx, c, args[0], args[1])
			})
		},
	}
}

func aboutDomain(cmd *cobra.Command, f func(context.Context, *client.Client) (*client.Domain, error)) error {
	c, err := dial(cmd)
	if err != nil {
		return err
	}
	d, err := f(cmd.Context(), c)
	if err != nil {
		return err
	}
	return write(cmd, d, domainText(d))
}

// domainText says how a domain is, and what is to be done.
func domainText(d *client.Domain) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s is %s, its certificate %s", d.FQDN, d.State, d.Certificate)
	if d.NotAfter != nil {
		fmt.Fprintf(&b, " until %s", day(d.NotAfter))
	}
	if d.NextRenewal != nil {
		fmt.Fprintf(&b, ", next try %s", day(d.NextRenewal))
	}
	if d.LastError != "" {
		fmt.Fprintf(&b, "\n%s", d.LastError)
	}
	if d.State == "pending" {
		fmt.Fprintf(&b, "\nmake these records, then: manor domain verify TENANT %s", d.FQDN)
	}
	for _, r := range []client.DNSRecord{d.Challenge, d.CNAME} {
		switch {
		case d.State != "pending":
		case r.Type == "TXT":
			fmt.Fprintf(&b, "\n%s. IN TXT %q", r.Name, r.Value)
		default:
			fmt.Fprintf(&b, "\n%s. IN %s %s.", r.Name, r.Type, r.Value)
		}
	}
	return b.String()
}
