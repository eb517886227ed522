// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/store"
)

// InOrganization is a request about an organization. Its name is exported
// because only then huma sees what is embedded.
type InOrganization struct {
	Organization string `path:"organization" doc:"The organization's id." example:"org_01j9zq5e6v8x7w0r3t2y4u6i8o"`
}

// Organization is an organization.
type Organization struct {
	ID        string    `json:"id" example:"org_01j9zq5e6v8x7w0r3t2y4u6i8o"`
	Name      string    `json:"name" example:"Acme"`
	Email     string    `json:"email" doc:"Where its people are reached." example:"ops@acme.example"`
	CreatedAt time.Time `json:"created_at"`
}

// OrganizationUpdate is the body of PATCH …/organizations/{organization}.
type OrganizationUpdate struct {
	Name  *string `json:"name,omitempty" example:"Acme"`
	Email *string `json:"email,omitempty" example:"ops@acme.example"`
}

// Role is a built-in role.
type Role struct {
	Name        string   `json:"name" example:"developer"`
	Permissions []string `json:"permissions" doc:"What it may do." example:"[\"tenants:read\"]"`
}

// RoleList is the answer to GET …/roles.
type RoleList struct {
	Items []Role `json:"items"`
}

// TenantList is a page of tenants.
type TenantList struct {
	Items []TenantDetail `json:"items"`
	Next  *string        `json:"next" doc:"The cursor of the next page; null at the end."`
}

// Me is who calls.
type Me struct {
	Organization string `json:"organization" doc:"The organization's id."`
	Kind         string `json:"kind" enum:"key,member"`
	ID           string `json:"id" doc:"Of the API key or the member."`
	Email        string `json:"email,omitempty" doc:"Of the member."`
	Access
	ExpiresAt *time.Time `json:"expires_at,omitempty" doc:"When the key or the token ends; left out if never."`
}

// Access is what a key or a member may do. Its name is exported because only
// then huma sees what is embedded.
type Access struct {
	Role        string   `json:"role,omitempty" enum:"owner,admin,developer,billing,viewer" doc:"A built-in role; left out where permissions are given."`
	Permissions []string `json:"permissions,omitempty" doc:"What it may do, where it has no role." example:"[\"usage:read\"]"`
	Tenants     []string `json:"tenants,omitempty" doc:"The ids of the tenants to which it is limited; left out, it is not." example:"[\"acme\"]"`
}

func accessBody(a tenancy.Access) Access { return Access(a) }

type (
	organizationInput  struct{ InOrganization }
	organizationOutput struct {
		ETag string `header:"ETag"`
		Body Organization
	}
	updateOrganizationInput struct {
		InOrganization
		Change
		Body OrganizationUpdate
	}
	deleteOrganizationInput struct {
		InOrganization
		Change
	}
	rolesOutput                  struct{ Body RoleList }
	listOrganizationTenantsInput struct {
		InOrganization
		Paged
		Deleted bool `query:"deleted" doc:"List those that are deleted, and not purged yet, instead."`
	}
	listOrganizationTenantsOutput struct{ Body TenantList }
	createTenantInput             struct {
		InOrganization
		Post
		Body NewTenant
	}
	createTenantOutput struct {
		Status int
		ETag   string `header:"ETag"`
		Body   TenantDetail
	}
	meOutput struct{ Body Me }
)

// inOrganizations is what the paths of an organization begin with.
const inOrganizations = "/v1/organizations/{organization}"

func (s *Server) organizationRoutes() {
	const tag = "Organizations"
	register(s, operation("get-me", http.MethodGet, "/v1/me", tag, "See who calls, and what the caller may do"), s.getMe)
	register(s, operation("get-organization", http.MethodGet, inOrganizations, tag, "Get an organization"), s.getOrganization)
	register(s, operation("update-organization", http.MethodPatch, inOrganizations, tag, "Change what is given of an organization"), s.updateOrganization)
	register(s, operation("delete-organization", http.MethodDelete, inOrganizations, tag,
		"Delete an organization that has no tenants, with its members and API keys, also the one that asks; its audit log stays for as long as it is kept"), s.deleteOrganization)
	register(s, operation("list-roles", http.MethodGet, inOrganizations+"/roles", tag, "List the built-in roles"), s.listRoles)
	op := operation("create-tenant", http.MethodPost, inOrganizations+"/tenants", tag, "Make another tenant of an organization")
	describeDryRun(s, &op, TenantDetail{})
	register(s, op, s.createTenant)
	register(s, operation("list-organization-tenants", http.MethodGet, inOrganizations+"/tenants", tag, "List the tenants of an organization"), s.listOrganizationTenants)
}

func (s *Server) getMe(ctx context.Context, _ *struct{}) (*meOutput, error) {
	c := callerOf(ctx)
	me := Me{Organization: c.principal.Organization, Kind: c.actor.Kind, ID: c.actor.ID, Access: accessBody(c.principal.Access)}
	switch {
	case c.session != nil:
		me.Email, me.ExpiresAt = c.member.Email, &c.session.ExpiresAt
	case !c.key.ExpiresAt.IsZero():
		me.ExpiresAt = &c.key.ExpiresAt
	}
	return &meOutput{Body: me}, nil
}

func organizationBody(o *store.Organization) Organization {
	return Organization{ID: o.ID, Name: o.Name, Email: o.Email, CreatedAt: o.CreatedAt}
}

func (s *Server) getOrganization(ctx context.Context, in *organizationInput) (*organizationOutput, error) {
	o, err := s.store.Organization(ctx, in.Organization)
	if err != nil {
		return nil, err
	}
	return &organizationOutput{ETag: etag(o.Revision), Body: organizationBody(o)}, nil
}

// apply checks the update and returns what does it.
func (u *OrganizationUpdate) apply() (func(*store.Organization) error, error) {
	if u.Name == nil && u.Email == nil {
		return nil, errs.Coded(errs.Invalid, "request_invalid", "expected name or email")
	}
	if u.Name != nil {
		name := strings.TrimSpace(*u.Name)
		if err := tenancy.ValidOrganization(name); err != nil {
			return nil, err
		}
		u.Name = &name
	}
	if u.Email != nil {
		if err := tenancy.ValidEmail(*u.Email); err != nil {
			return nil, err
		}
	}
	return func(o *store.Organization) error {
		if u.Name != nil {
			o.Name = *u.Name
		}
		if u.Email != nil {
			o.Email = *u.Email
		}
		return nil
	}, nil
}

func (s *Server) updateOrganization(ctx context.Context, in *updateOrganizationInput) (*organizationOutput, error) {
	rev, err := ifMatch(in.IfMatch, "organization")
	if err != nil {
		return nil, err
	}
	apply, err := in.Body.apply()
	if err != nil {
		return nil, err
	}
	o, err := s.store.Organization(ctx, in.Organization)
	if err != nil {
		return nil, err
	}
	if in.DryRun {
		if err := matches(rev, o.Revision, "organization"); err != nil {
			return nil, err
		}
		unchanged(ctx)
		_ = apply(o) // checked above
		return &organizationOutput{ETag: etag(o.Revision), Body: organizationBody(o)}, nil
	}
	if err := change(ctx, in.Organization, "", "organization", organizationBody(o)); err != nil {
		return nil, err
	}
	was, now, err := s.store.ChangeOrganization(ctx, in.Organization, rev, apply)
	if err != nil {
		return nil, err
	}
	if err := changed(ctx, organizationBody(was), organizationBody(now)); err != nil {
		return nil, err
	}
	return &organizationOutput{ETag: etag(now.Revision), Body: organizationBody(now)}, nil
}

func (s *Server) deleteOrganization(ctx context.Context, in *deleteOrganizationInput) (*struct{}, error) {
	rev, err := ifMatch(in.IfMatch, "organization")
	if err != nil {
		return nil, err
	}
	o, err := s.store.Organization(ctx, in.Organization)
	if err == nil {
		err = s.store.CheckClose(ctx, o)
	}
	if err != nil {
		return nil, err
	}
	if in.DryRun {
		unchanged(ctx)
		return nil, matches(rev, o.Revision, "organization")
	}
	if err := change(ctx, in.Organization, "", "organization", organizationBody(o)); err != nil {
		return nil, err
	}
	was, err := s.store.CloseOrganization(ctx, in.Organization, rev)
	if err != nil {
		return nil, err
	}
	s.log.Info("organization deleted", "organization", was.ID)
	return nil, changed(ctx, organizationBody(was), nil)
}

func (s *Server) listRoles(context.Context, *organizationInput) (*rolesOutput, error) {
	all := s.cfg.RBAC.Roles()
	names := slices.SortedFunc(maps.Keys(all), func(a, b string) int {
		return slices.Index(tenancy.Roles(), a) - slices.Index(tenancy.Roles(), b)
	})
	out := &rolesOutput{}
	for _, name := range names {
		out.Body.Items = append(out.Body.Items, Role{Name: name, Permissions: all[name]})
	}
	return out, nil
}

func (s *Server) listOrganizationTenants(ctx context.Context, in *listOrganizationTenantsInput) (*listOrganizationTenantsOutput, error) {
	after, err := readCursor(in.Cursor)
	if err != nil {
		return nil, err
	}
	o, err := s.store.Organization(ctx, in.Organization)
	if err != nil {
		return nil, err
	}
	ids := slices.Sorted(slices.Values(o.Tenants))
	ids = slices.DeleteFunc(ids, func(id string) bool { return id <= after })
	out := &listOrganizationTenantsOutput{Body: TenantList{Items: []TenantDetail{}}}
	for i, id := range ids {
		if i == in.Limit {
			out.Body.Next = writeCursor(ids[i-1])
			break
		}
		t, err := s.store.Tenant(ctx, id)
		if errs.Is(err, errs.NotFound) || err == nil && ((t.State == tenancy.StateDeleted) != in.Deleted || t.Organization != o.ID) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out.Body.Items = append(out.Body.Items, s.tenantDetail(t))
	}
	return out, nil
}

// NewTenant is the body of POST …/tenants.
type NewTenant struct {
	ID   string `json:"id" doc:"The tenant's id: a lower case DNS label of 3 to 63 characters, which becomes its hostname." example:"acme-test"`
	Plan string `json:"plan,omitempty" doc:"The installation's default plan, if left out." example:"dev"`
}

func (s *Server) createTenant(ctx context.Context, in *createTenantInput) (*createTenantOutput, error) {
	b := in.Body
	if b.Plan == "" {
		b.Plan = s.cfg.DefaultPlan
	}
	if err := tenancy.ValidTenantID(b.ID); err != nil {
		return nil, err
	}
	if err := s.mayChoose(b.Plan); err != nil {
		return nil, err
	}
	if err := s.store.CheckTenantFreeFor(ctx, b.ID, in.Organization); err != nil {
		return nil, err
	}
	if err := s.store.MayAddTenant(ctx, in.Organization, b.ID); err != nil {
		return nil, err
	}
	if in.DryRun {
		unchanged(ctx)
		t := &tenancy.TenantRecord{ID: b.ID, Organization: in.Organization, Region: s.store.Region(), Plan: b.Plan, State: tenancy.StateActive, CreatedAt: s.now().UTC()}
		return &createTenantOutput{Status: http.StatusOK, Body: s.tenantDetail(t)}, nil
	}
	if err := change(ctx, in.Organization, b.ID, "tenant "+b.ID, nil); err != nil {
		return nil, err
	}
	t, err := s.store.AddTenant(ctx, in.Organization, b.ID, b.Plan)
	if err != nil {
		return nil, err
	}
	if err := changed(ctx, nil, s.tenantDetail(t)); err != nil {
		return nil, err
	}
	s.log.Info("tenant made", "tenant", t.ID, "organization", t.Organization, "plan", t.Plan)
	s.usesTenants(ctx, t.Organization)
	return &createTenantOutput{Status: http.StatusCreated, ETag: etag(t.Revision), Body: s.tenantDetail(t)}, nil
}
