// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"net/http"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/audit"
	"github.com/manormq/manor/tenancy/policy"
	"github.com/manormq/manor/tenancy/store"
)

// bearer is the name of the security scheme; an operation that has it needs an
// API key or the token of a member.
const bearer = "bearer"

func secured() []map[string][]string { return []map[string][]string{{bearer: {}}} }

// caller is who makes a request. A stranger has an address only.
type caller struct {
	actor     audit.Actor
	principal policy.Principal
	address   string
	// key and session are those that it calls with; one is nil.
	key     *store.APIKey
	session *store.MemberSession
	member  *store.Member
}

type (
	callerKey struct{}
	tenantKey struct{}
)

// callerOf returns who makes the request.
func callerOf(ctx context.Context) *caller {
	c, ok := ctx.Value(callerKey{}).(*caller)
	if !ok {
		panic("api: an operation without its middleware asks for its caller")
	}
	return c
}

// authenticate is a huma middleware: it finds out who calls an operation that
// needs an API key or a token, and whether the caller may. What belongs to
// another organization, and a tenant to which the caller is not limited, is not
// told from what does not exist.
func (s *Server) authenticate(ctx huma.Context, next func(huma.Context)) {
	r, w := humachi.Unwrap(ctx)
	a := askingOf(r)
	if a.open() {
		if err := s.count(a); err != nil {
			writeProblem(w, problemOf(err))
			return
		}
		// Who calls makes no difference here.
		next(huma.WithValue(ctx, callerKey{}, &caller{address: a.caller.address, actor: audit.Actor{Kind: audit.ActorSignUp}}))
		return
	}
	c := a.caller
	t, err := s.authorized(r.Context(), a, ctx)
	// What is refused counts too, as the organization's: it has cost as much.
	if err == nil || a.known() {
		left, over := s.mayAsk(r.Context(), c, t)
		left.tell(w.Header())
		if over != nil {
			err = over
		}
	}
	if err != nil {
		p := problemOf(err)
		if p.Status >= http.StatusInternalServerError {
			s.log.Error("API request failed", "operation", ctx.Operation().OperationID, "error", err)
		}
		writeProblem(w, p)
		return
	}
	if c.key != nil {
		s.store.UseKey(r.Context(), c.key.ID, c.address)
	}
	next(huma.WithValue(huma.WithValue(ctx, callerKey{}, c), tenantKey{}, t))
}

// authorized fills in who calls, and returns the tenant of the path, if there is
// one.
func (s *Server) authorized(ctx context.Context, a *asking, op huma.Context) (*tenancy.TenantRecord, error) {
	if err := a.err; err != nil {
		if errs.Is(err, errs.Denied) {
			return nil, newProblem(http.StatusUnauthorized, errs.CodeOf(err), err.Error())
		}
		return nil, err
	}
	c := a.caller
	permission := permissions[op.Operation().OperationID]
	if permission == own {
		return nil, nil
	}
	if tenant := op.Param("tenant"); tenant != "" {
		return s.authorizedTenant(ctx, c, op.Operation().OperationID, tenant)
	}
	about := policy.Resource{Organization: op.Param("organization")}
	d, err := s.cfg.RBAC.Allow(ctx, c.principal, permission, about)
	switch {
	case err != nil:
		return nil, err
	case d == policy.Allowed:
		return nil, nil
	case d == policy.Foreign:
		return nil, errs.Coded(errs.NotFound, "organization_not_found", "there is no organization %q", about.Organization)
	case d == policy.OutOfScope:
		return nil, errs.Coded(errs.Denied, "scope_insufficient", "the caller is limited to tenants, and this is of the organization")
	default:
		return nil, forbidden(permission)
	}
}

// errKeyMissing is of requests that say nothing of who makes them.
var errKeyMissing = errs.Coded(errs.Denied, "api_key_missing", "expected Authorization: Bearer and an API key (mk_…)")

func forbidden(permission string) error {
	return errs.Coded(errs.Denied, "permission_missing", "this needs the permission %s, which the caller does not have", permission)
}

func (s *Server) authorizedTenant(ctx context.Context, c *caller, operation, id string) (*tenancy.TenantRecord, error) {
	t, err := s.store.Tenant(ctx, id)
	if err != nil {
		return nil, err
	}
	permission := permissions[operation]
	d, err := s.cfg.RBAC.Allow(ctx, c.principal, permission, policy.Resource{Organization: t.Organization, Tenant: t.ID})
	switch {
	case err != nil:
		return nil, err
	case d == policy.Allowed && !allowed(t.AllowList, c.address):
		return nil, errs.Coded(errs.Denied, "address_not_allowed", "the tenant does not allow requests from the address %s", c.address)
	case d == policy.Allowed && t.State == tenancy.StateDeleted && !ofDeleted[operation]:
		return nil, gone(t)
	case d == policy.Allowed:
		return t, nil
	case d == policy.Forbidden:
		return nil, forbidden(permission)
	default:
		return nil, errs.Coded(errs.NotFound, "tenant_not_found", "there is no tenant %q", id)
	}
}

// tokenBegins is how the token of a member is told from an API key.
const tokenBegins = "mt_"

// identify finds out whose secret it is. The error is Denied if it is nobody's.
func (s *Server) identify(ctx context.Context, c *caller, secret string) (err error) {
	if strings.HasPrefix(secret, tokenBegins) {
		if c.session, c.member, err = s.store.AuthenticateToken(ctx, secret); err != nil {
			return err
		}
		c.actor = audit.Actor{Kind: audit.ActorMember, ID: c.member.ID}
		c.principal = policy.Principal{Organization: c.member.Organization, Access: c.member.Access}
		return nil
	}
	if c.key, err = s.store.AuthenticateKey(ctx, secret); err != nil {
		return err
	}
	c.actor = audit.Actor{Kind: audit.ActorKey, ID: c.key.ID}
	c.principal = policy.Principal{Organization: c.key.Organization, Access: c.key.Access}
	return nil
}

// mayGive returns an error Denied with Code "grant_exceeds" unless the caller
// itself has everything that the access has: nobody makes, or takes over,
// something more powerful.
func (s *Server) mayGive(ctx context.Context, access tenancy.Access) error {
	more, err := s.cfg.RBAC.Excess(ctx, callerOf(ctx).principal, access)
	if err != nil || len(more) == 0 {
		return err
	}
	return errs.Coded(errs.Denied, "grant_exceeds", "the caller itself does not have: %s", strings.Join(more, ", "))
}

func bearerToken(header string) (string, bool) {
	scheme, secret, ok := strings.Cut(header, " ")
	secret = strings.TrimSpace(secret)
	return secret, ok && strings.EqualFold(scheme, "bearer") && secret != ""
}

// tenantOf returns the tenant that authenticate has found.
func tenantOf(ctx context.Context) *tenancy.TenantRecord {
	t, ok := ctx.Value(tenantKey{}).(*tenancy.TenantRecord)
	if !ok || t == nil {
		panic("api: an operation without a tenant asks for its tenant")
	}
	return t
}

// etag writes a revision as an entity tag.
func etag(revision uint64) string { return `"` + strconv.FormatUint(revision, 10) + `"` }

// ifMatch reads an If-Match header about what is named: 0 for none and for *.
func ifMatch(header, what string) (uint64, error) {
	if header == "" || header == "*" {
		return 0, nil
	}
	text, ok := strings.CutPrefix(header, `"`)
	text, ok2 := strings.CutSuffix(text, `"`)
	revision, err := strconv.ParseUint(text, 10, 64)
	if !ok || !ok2 || err != nil || revision == 0 {
		return 0, errs.Coded(errs.Conflict, "revision_mismatch", "the %s is not at the ETag %s", what, header)
	}
	return revision, nil
}

// matches returns an error with which a dry run is refused as the change would
// be.
func matches(rev, is uint64, what string) error {
	if rev != 0 && rev != is {
		return errs.Coded(errs.Conflict, "revision_mismatch", "the %s is at revision %d, not %d", what, is, rev)
	}
	return nil
}
