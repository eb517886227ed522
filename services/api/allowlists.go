// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"net/http"
	"net/netip"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/store"
)

type (
	allowListInput struct {
		InTenant
		Change
		Body tenancy.AllowList `doc:"Both lists; one that is missing, or empty, allows every address."`
	}
	allowListOutput struct {
		ETag string `header:"ETag"`
		Body tenancy.AllowList
	}
)

func (s *Server) allowListRoutes() {
	const base = "/v1/tenants/{tenant}/ip-allow-lists"
	register(s, operation("get-ip-allow-lists", http.MethodGet, base, "Identities", "Get from where a tenant may be reached"), s.allowLists)
	register(s, operation("replace-ip-allow-lists", http.MethodPut, base, "Identities",
		"Replace from where a tenant may be reached; connections from elsewhere end within 2 s"), s.replaceAllowLists)
}

func allowListBody(t *tenancy.TenantRecord) *allowListOutput {
	out := &allowListOutput{ETag: etag(t.Revision)}
	if t.AllowList != nil {
		out.Body = *t.AllowList
	}
	return out
}

func (s *Server) allowLists(ctx context.Context, _ *tenantInput) (*allowListOutput, error) {
	return allowListBody(tenantOf(ctx)), nil
}

func (s *Server) replaceAllowLists(ctx context.Context, in *allowListInput) (*allowListOutput, error) {
	// Who could not take it back is most likely wrong.
	if err := in.Body.Valid(); err != nil {
		return nil, err
	}
	if c := callerOf(ctx); !allowed(&in.Body, c.address) {
		return nil, errs.Coded(errs.Invalid, "allow_list_excludes_caller", "the list api does not have the address %s, from which this request comes: nobody there could change it again", c.address)
	}
	t, err := s.replacePart(ctx, in.Change, "IP allow-lists", func(t *tenancy.TenantRecord) any { return t.AllowList }, store.AllowList(&in.Body))
	if err != nil {
		return nil, err
	}
	return allowListBody(t), nil
}

// allowed reports whether the list lets requests from that address in. What is no
// address is in no network.
func allowed(l *tenancy.AllowList, address string) bool {
	if l == nil || len(l.API) == 0 {
		return true
	}
	a, err := netip.ParseAddr(address)
	return err == nil && tenancy.ParseNetworks(l.API).Allow(a)
}
