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
)

// bearer is the name of the security scheme; an operation that has it needs an
// API key.
const bearer = "bearer"

func secured() []map[string][]string { return []map[string][]string{{bearer: {}}} }

type tenantKey struct{}

// authenticate is a huma middleware: it checks the API key of an operation that
// needs one, and that the tenant of its path belongs to the key's organization.
// A tenant of somebody else is not told from one that does not exist.
func (s *Server) authenticate(ctx huma.Context, next func(huma.Context)) {
	if len(ctx.Operation().Security) == 0 {
		next(ctx)
		return
	}
	r, w := humachi.Unwrap(ctx)
	t, err := s.authorized(r.Context(), ctx.Header("Authorization"), ctx.Param("tenant"))
	if err != nil {
		p := problemOf(err)
		if p.Status >= http.StatusInternalServerError {
			s.log.Error("API request failed", "operation", ctx.Operation().OperationID, "error", err)
		}
		writeProblem(w, p)
		return
	}
	next(huma.WithValue(ctx, tenantKey{}, t))
}

func (s *Server) authorized(ctx context.Context, header, tenant string) (*tenancy.TenantRecord, error) {
	secret, ok := bearerToken(header)
	if !ok {
		return nil, newProblem(http.StatusUnauthorized, "api_key_missing", "expected Authorization: Bearer and an API key (mk_…)")
	}
	key, err := s.store.AuthenticateKey(ctx, secret)
	if errs.Is(err, errs.Denied) {
		return nil, newProblem(http.StatusUnauthorized, "api_key_invalid", "the API key is not valid")
	}
	if err != nil {
		return nil, err
	}
	t, err := s.store.Tenant(ctx, tenant)
	if err == nil && (t.Organization != key.Organization || t.State == tenancy.StateDeleted) {
		err = errs.Coded(errs.NotFound, "tenant_not_found", "there is no tenant %q", tenant)
	}
	return t, err
}

func bearerToken(header string) (string, bool) {
	scheme, secret, ok := strings.Cut(header, " ")
	secret = strings.TrimSpace(secret)
	return secret, ok && strings.EqualFold(scheme, "bearer") && secret != ""
}

// tenantOf returns the tenant that authenticate has found.
func tenantOf(ctx context.Context) *tenancy.TenantRecord {
	t, ok := ctx.Value(tenantKey{}).(*tenancy.TenantRecord)
	if !ok {
		panic("api: an operation without security asks for its tenant")
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
