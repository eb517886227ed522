// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/manormq/manor/infra/errs"
)

// given is what a tenant has when an operator has changed it.
type given struct {
	Tenant    string
	State     string
	Reason    string
	Plan      string
	Overrides map[string]int64
}

func (g *given) text() (string, bool) {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(g.Overrides)) {
		list = append(list, fmt.Sprintf("%s=%d", name, g.Overrides[name]))
	}
	if len(list) == 0 {
		list = []string{"none"}
	}
	state := cmp.Or(g.State, "there")
	if g.Reason != "" {
		state += " (" + g.Reason + ")"
	}
	return fmt.Sprintf("%s is %s, on plan %s; its overrides: %s", g.Tenant, state, g.Plan, strings.Join(list, " ")), g.Tenant != ""
}

const askedTenancy = "A tenancyd is asked, at its operator listener: --operator URL, $" + operatorEnv + ", or " + tenancyDefault + ". It is in the audit log of the\ntenant's organization."

// adminGives are what an operator gives to tenants, which their owners cannot take.
func adminGives() []*cobra.Command {
	plan := &cobra.Command{
		Use:   "plan TENANT PLAN [--operator URL]",
		Short: "give a tenant a plan, also one that owners may not choose",
		Long:  "Give a tenant a plan, also one that owners may not choose (plans of tenancyd), such as none. Its overrides stay, but those\nthat the plan of before allowed and this one does not.\n" + askedTenancy,
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			var out given
			return askTenancy(cmd, http.MethodPut, "/tenancy/v1/tenants/"+url.PathEscape(args[0])+"/plan", map[string]string{"plan": args[1]}, &out, out.text)
		},
	}
	quota := &cobra.Command{
		Use:   "quota TENANT NAME=LIMIT… [--operator URL]",
		Short: "override quotas of a tenant, also beyond what its plan has",
		Long:  "Override quotas of a tenant, also beyond what its plan has; NAME=none is no limit, NAME= has the plan's again, others stay.\n" + askedTenancy,
		Args:  cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			set, unset := map[string]int64{}, []string{}
			for _, arg := range args[1:] {
				if name, ok := strings.CutSuffix(arg, "="); ok {
					unset = append(unset, name)
					continue
				}
				name, n, err := limitArg(arg)
				if err != nil {
					return err
				}
				set[name] = n
			}
			for _, name := range unset {
				if _, both := set[name]; both {
					return errs.New(errs.Invalid, "%s is there twice", name)
				}
			}
			var out given
			return askTenancy(cmd, http.MethodPost, "/tenancy/v1/tenants/"+url.PathEscape(args[0])+"/quotas", map[string]any{"set": set, "unset": unset}, &out, out.text)
		},
	}
	var reason string
	suspend := &cobra.Command{
		Use:   "suspend TENANT [--reason TEXT] [--operator URL]",
		Short: "let no client of a tenant in until an operator resumes it; everything is kept",
		Long:  "Let no client of a tenant in, and end the connections that are there, until an operator resumes it: its owners cannot. Everything\nis kept.\n" + askedTenancy,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var out given
			return askTenancy(cmd, http.MethodPost, "/tenancy/v1/tenants/"+url.PathEscape(args[0])+"/suspend", map[string]string{"reason": reason}, &out, out.text)
		},
	}
	suspend.Flags().StringVar(&reason, "reason", "", "why, as its clients and owners are told; up to 200 characters")
	resume := &cobra.Command{
		Use:   "resume TENANT [--operator URL]",
		Short: "let the clients of a suspended tenant in again, whoever has suspended it",
		Long:  "Let the clients of a suspended tenant in again, whoever has suspended it.\n" + askedTenancy,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var out given
			return askTenancy(cmd, http.MethodPost, "/tenancy/v1/tenants/"+url.PathEscape(args[0])+"/resume", map[string]string{}, &out, out.text)
		},
	}
	return []*cobra.Command{plan, quota, suspend, resume}
}
