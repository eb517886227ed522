// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/node"
	"github.com/manormq/manor/services/api/client"
)

func quotas() *cobra.Command {
	c := ofAPI(&cobra.Command{Use: "quota", Short: "what a tenant may use, and uses"})
	c.AddCommand(&cobra.Command{
		Use:   "list TENANT",
		Short: "list the quotas of a tenant: the limit, what is used of it now, what is left, and where the limit comes from",
		Args:  cobra.ExactArgs(1),
		RunE:  showQuotas,
	}, &cobra.Command{
		Use:   "show TENANT [NAME…]",
		Short: "show quotas of a tenant as list does, those that are named, or all",
		Args:  cobra.MinimumNArgs(1),
		RunE:  showQuotas,
	}, &cobra.Command{
		Use:   "set TENANT NAME=LIMIT…",
		Short: "override limits of a tenant's plan; the other overrides stay. none, or -1, is no limit",
		Args:  cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			limits := map[string]int64{}
			for _, arg := range args[1:] {
				name, n, err := limitArg(arg)
				if err != nil {
					return err
				}
				limits[name] = n
			}
			return changeQuotas(cmd, args[0], func(overrides map[string]int64) error {
				maps.Copy(overrides, limits)
				return nil
			})
		},
	}, &cobra.Command{
		Use:   "unset TENANT NAME…",
		Short: "have limits of a tenant be those of its plan again",
		Args:  cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return changeQuotas(cmd, args[0], func(overrides map[string]int64) error {
				for _, name := range args[1:] {
					if _, ok := overrides[name]; !ok {
						return errs.New(errs.Invalid, "%s is not overridden; manor quota show %s says what is", name, args[0])
					}
					delete(overrides, name)
				}
				return nil
			})
		},
	})
	return c
}

// limitArg reads NAME=LIMIT.
func limitArg(arg string) (name string, limit int64, err error) {
	name, value, ok := strings.Cut(arg, "=")
	limit, err = strconv.ParseInt(value, 10, 64)
	if value == "none" {
		limit, err = -1, nil
	}
	if !ok || err != nil {
		return "", 0, errs.New(errs.Invalid, "expected NAME=LIMIT, such as connections=5 or publish_rate=none, found %q", arg)
	}
	return name, limit, nil
}

func showQuotas(cmd *cobra.Command, args []string) error {
	c, err := dial(cmd)
	if err != nil {
		return err
	}
	page, err := c.Quotas(cmd.Context(), args[0])
	if err != nil {
		return err
	}
	return writeQuotas(cmd, page, args[1:])
}

// writeQuotas writes those of that name, or all.
func writeQuotas(cmd *cobra.Command, page *client.QuotaList, names []string) error {
	all := page.Items
	if len(names) > 0 {
		all = nil
	}
	for _, name := range names {
		i := slices.IndexFunc(page.Items, func(q client.Quota) bool { return q.Name == name })
		if i < 0 {
			var known []string
			for _, q := range page.Items {
				known = append(known, q.Name)
			}
			if near, far := node.Nearest(name, known); far <= 1+len(name)/3 {
				return errs.New(errs.Invalid, "there is no quota %q; did you mean %s?", name, near)
			}
			return errs.New(errs.Invalid, "there is no quota %q; expected one of %s", name, strings.Join(known, ", "))
		}
		all = append(all, page.Items[i])
	}
	if page.Held {
		fmt.Fprintln(cmd.ErrOrStderr(), "The installation's policy could not be followed at the last change of the tenant: the limits are those of before.")
	}
	return writeList(cmd, all, "QUOTA LIMIT USAGE HEADROOM SOURCE", func(q client.Quota) []any {
		limit := strconv.FormatInt(q.Limit, 10)
		if q.Limit < 0 {
			limit = "none"
		}
		return []any{q.Name, limit, figure(q.Usage), figure(q.Headroom), q.Source}
	})
}

// changeTries is how often overrides are read and written again that somebody else has
// changed meanwhile.
const changeTries = 5

// changeQuotas changes the overrides of a tenant, and writes the quotas that are different
// then.
func changeQuotas(cmd *cobra.Command, tenant string, change func(map[string]int64) error) error {
	c, err := dial(cmd)
	if err != nil {
		return err
	}
	var idle string
	for try := 1; ; try++ {
		now, names, err := changeOnce(cmd.Context(), c, tenant, &idle, change)
		if p := client.AsProblem(err); p != nil && p.Status == http.StatusPreconditionFailed && try < changeTries {
			continue
		}
		if err != nil {
			return err
		}
		if len(names) == 0 {
			fmt.Fprintln(cmd.ErrOrStderr(), "Nothing was changed: it is so already.")
			names = nil
			now.Items = []client.Quota{}
		}
		if idle != "" {
			fmt.Fprintf(cmd.ErrOrStderr(), "Kept and shown, but what they limit is not built yet: %s.\n", idle)
		}
		return writeQuotas(cmd, now, names)
	}
}

// changeOnce puts the names of overrides that limit nothing yet into idle.
func changeOnce(ctx context.Context, c *client.Client, tenant string, idle *string, change func(map[string]int64) error) (now *client.QuotaList, names []string, err error) {
	var etag string
	was, err := c.Quotas(ctx, tenant, client.TakeETag(&etag))
	if err != nil {
		return nil, nil, err
	}
	before, after := map[string]int64{}, map[string]int64{}
	for _, q := range was.Items {
		if q.Override != nil {
			before[q.Name], after[q.Name] = *q.Override, *q.Override
		}
	}
	if err := change(after); err != nil {
		return nil, nil, err
	}
	if now, err = c.ReplaceOverrides(ctx, tenant, after, client.IfMatch(etag), client.TakeHeader("Quotas-Not-Enforced", idle)); err != nil {
		return nil, nil, err
	}
	for _, q := range now.Items {
		old, had := before[q.Name]
		if n, has := after[q.Name]; had != has || old != n {
			names = append(names, q.Name)
		}
	}
	return now, names, nil
}

// figure writes what may be unknown.
func figure(n *int64) string {
	if n == nil {
		return "-"
	}
	return strconv.FormatInt(*n, 10)
}
