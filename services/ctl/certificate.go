// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"context"
	"encoding/pem"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/services/api/client"
)

// certificates are the commands about certificates that Manor signs.
func certificates() []*cobra.Command {
	var days int
	ca := &cobra.Command{
		Use:   "ca TENANT",
		Short: "show the certificate of the CA that signs for the tenant, and make it first with --create",
		Args:  cobra.ExactArgs(1),
	}
	create := ca.Flags().Bool("create", false, "make the CA, and have the tenant trust it")
	forget := ca.Flags().Bool("delete", false, "forget its key, so that it signs no more")
	list := ca.Flags().Bool("crl", false, "show its revocation list instead, in PEM")
	ca.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := dial(cmd)
		if err != nil {
			return err
		}
		if *forget {
			if err := c.DeleteManagedCA(cmd.Context(), args[0]); err != nil {
				return err
			}
			return write(cmd, map[string]string{"deleted": "managed-ca"}, "it signs no more")
		}
		if *list {
			der, err := c.ManagedCRL(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			text := string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}))
			return write(cmd, map[string]string{"crl": text}, text)
		}
		get := c.ManagedCA
		if *create {
			get = func(ctx context.Context, tenant string) (*client.ManagedCA, error) {
				return c.CreateManagedCA(ctx, tenant)
			}
		}
		now, err := get(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return write(cmd, now, now.Certificate)
	}
	sign := &cobra.Command{
		Use:   "sign TENANT USERNAME CSR",
		Short: "sign a certificate of the client USERNAME for the key of a request, a file in PEM",
		Args:  cobra.ExactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			csr, err := os.ReadFile(args[2])
			if err != nil {
				return errs.New(errs.Invalid, "%w", err)
			}
			got, err := c.SignCertificate(cmd.Context(), args[0], client.Sign{CSR: string(csr), Username: args[1], Days: days})
			if err != nil {
				return err
			}
			return write(cmd, got, got.Certificate)
		},
	}
	sign.Flags().IntVar(&days, "days", 90, "for how many days the certificate is good")
	claim := &cobra.Command{Use: "claim", Short: "secrets that are good for one certificate each"}
	var during time.Duration
	add := &cobra.Command{
		Use:   "create TENANT USERNAME",
		Short: "make a claim, with which the device gets its certificate at POST /v1/claims:redeem",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			end := time.Now().Add(during).UTC().Truncate(time.Second)
			got, err := c.CreateClaim(cmd.Context(), args[0], client.NewClaim{Username: args[1], Days: days, ExpiresAt: &end})
			if err != nil {
				return err
			}
			return write(cmd, got, fmt.Sprintf("%s is good until %s; its secret, shown once: %s", got.ID, day(&got.ExpiresAt), got.Secret))
		},
	}
	add.Flags().IntVar(&days, "days", 90, "for how many days the certificate will be good")
	add.Flags().DurationVar(&during, "for", 24*time.Hour, "for how long the claim is good, at most 720h")
	claims := &cobra.Command{
		Use:   "list TENANT",
		Short: "list the claims that were not used",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			all, err := every(cmd.Context(), func(ctx context.Context, o ...client.Option) (*client.Page[client.Claim], error) {
				return c.Claims(ctx, args[0], o...)
			})
			if err != nil {
				return err
			}
			return writeList(cmd, all, "CLAIM USERNAME DAYS UNTIL", func(x client.Claim) []any { return []any{x.ID, x.Username, x.Days, day(&x.ExpiresAt)} })
		},
	}
	remove := &cobra.Command{
		Use:   "delete TENANT CLAIM",
		Short: "take a claim back",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := dial(cmd)
			if err != nil {
				return err
			}
			if err := c.DeleteClaim(cmd.Context(), args[0], args[1]); err != nil {
				return err
			}
			return write(cmd, map[string]string{"deleted": args[1]}, args[1]+" is taken back")
		},
	}
	claim.AddCommand(claims, add, remove)
	return []*cobra.Command{ca, sign, claim}
}
