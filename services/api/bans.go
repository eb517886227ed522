// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"net/http"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/store"
)

// BanRequest is the body of POST …/bans.
type BanRequest struct {
	Kind      string     `json:"kind" enum:"client_id,username,address,certificate" doc:"What is banned."`
	Value     string     `json:"value" doc:"The client id or the user name; an address or a network such as 10.0.0.0/8; of a certificate sha256: and the digest of its DER, or serial: and its serial number, in hexadecimal." example:"press-7"`
	Reason    string     `json:"reason,omitempty" doc:"At most 256 bytes; told to the client." example:"lost in transit"`
	ExpiresAt *time.Time `json:"expires_at,omitempty" doc:"When the ban ends; left out, never."`
}

// Ban is a ban.
type Ban struct {
	ID string `json:"id" example:"ban_9f86d081884c7d659a2feaa0c5"`
	BanRequest
	CreatedAt time.Time `json:"created_at"`
	Automatic bool      `json:"automatic" doc:"Whether it was made because the client connected again and again."`
	Level     int       `json:"level,omitempty" doc:"How often in a row that was; each time the ban is twice as long."`
}

// BanList is a page of bans.
type BanList struct {
	Items []Ban   `json:"items"`
	Next  *string `json:"next" doc:"The cursor of the next page; null at the end."`
}

// FlappingRequest is the body of flapping, both ways.
type FlappingRequest struct {
	Rule *tenancy.Flapping `json:"rule,omitempty" doc:"When a client id is banned; left out, never."`
}

type (
	createBanInput struct {
		InTenant
		Post
		Body BanRequest
	}
	createBanOutput struct {
		Status int
		ETag   string `header:"ETag"`
		Body   Ban
	}
	listBansInput struct {
		InTenant
		Paged
	}
	listBansOutput struct{ Body BanList }
	deleteBanInput struct {
		InTenant
		Change
		Ban string `path:"ban" doc:"The ban's id."`
	}
	flappingInput struct {
		InTenant
		Change
		Body FlappingRequest
	}
	flappingOutput struct {
		ETag string `header:"ETag"`
		Body FlappingRequest
	}
)

func (s *Server) banRoutes() {
	const base = "/v1/tenants/{tenant}"
	op := operation("create-ban", http.MethodPost, base+"/bans", "Identities",
		"Ban clients, whose connections end within 2 s; or change the reason and the end of the ban that is there for the same kind and value")
	describeAnswer(s, &op, "200", "The ban that was there, as it is now; or what a dry run answers.", Ban{})
	register(s, op, s.createBan)
	register(s, operation("list-bans", http.MethodGet, base+"/bans", "Identities", "List the bans that hold now, in order of their ids"), s.listBans)
	register(s, operation("delete-ban", http.MethodDelete, base+"/bans/{ban}", "Identities", "End a ban"), s.deleteBan)
	register(s, operation("get-flapping", http.MethodGet, base+"/flapping", "Identities", "Get when a client is banned that connects again and again"), s.flapping)
	register(s, operation("replace-flapping", http.MethodPut, base+"/flapping", "Identities", "Replace when a client is banned that connects again and again"), s.replaceFlapping)
}

func banBody(b *tenancy.Ban) Ban {
	out := Ban{ID: b.ID, BanRequest: BanRequest{Kind: b.Kind, Value: b.Value, Reason: b.Reason}, CreatedAt: b.CreatedAt, Automatic: b.Automatic, Level: b.Level}
	if !b.ExpiresAt.IsZero() {
		out.ExpiresAt = &b.ExpiresAt
	}
	return out
}

func (s *Server) createBan(ctx context.Context, in *createBanInput) (*createBanOutput, error) {
	t := tenantOf(ctx)
	b := tenancy.Ban{Kind: in.Body.Kind, Value: in.Body.Value, Reason: in.Body.Reason}
	if in.Body.ExpiresAt != nil {
		b.ExpiresAt = in.Body.ExpiresAt.UTC()
	}
	if err := s.store.CheckBan(&b); err != nil {
		return nil, err
	}
	b.ID = tenancy.BanID(b.Kind, b.Value)
	if in.DryRun {
		unchanged(ctx)
		b.CreatedAt = s.now().UTC()
		return &createBanOutput{Status: http.StatusOK, Body: banBody(&b)}, nil
	}
	var before any
	switch was, err := s.store.BanByID(ctx, t.ID, b.ID); {
	case err == nil:
		before = banBody(was)
	case !errs.Is(err, errs.NotFound):
		return nil, err
	}
	if err := change(ctx, t.Organization, t.ID, "ban "+b.ID, before); err != nil {
		return nil, err
	}
	now, made, err := s.store.Ban(ctx, t.ID, b)
	if err != nil {
		return nil, err
	}
	s.log.Info("clients banned", "tenant", t.ID, "ban", now.ID, "kind", now.Kind)
	out := &createBanOutput{Status: http.StatusOK, ETag: etag(now.Revision), Body: banBody(now)}
	if made {
		out.Status = http.StatusCreated
	}
	return out, changed(ctx, before, out.Body)
}

func (s *Server) listBans(ctx context.Context, in *listBansInput) (*listBansOutput, error) {
	after, err := readCursor(in.Cursor)
	if err != nil {
		return nil, err
	}
	page, next, err := s.store.Bans(ctx, tenantOf(ctx).ID, after, in.Limit)
	if err != nil {
		return nil, err
	}
	out := &listBansOutput{Body: BanList{Items: []Ban{}, Next: writeCursor(next)}}
	for _, b := range page {
		out.Body.Items = append(out.Body.Items, banBody(b))
	}
	return out, nil
}

func (s *Server) deleteBan(ctx context.Context, in *deleteBanInput) (*struct{}, error) {
	t := tenantOf(ctx)
	rev, err := ifMatch(in.IfMatch, "ban "+in.Ban)
	if err != nil {
		return nil, err
	}
	b, err := s.store.BanByID(ctx, t.ID, in.Ban)
	if err != nil {
		return nil, err
	}
	if err := matches(rev, b.Revision, "ban "+in.Ban); err != nil {
		return nil, err
	}
	if in.DryRun {
		unchanged(ctx)
		return nil, nil
	}
	if err := change(ctx, t.Organization, t.ID, "ban "+b.ID, banBody(b)); err != nil {
		return nil, err
	}
	was, err := s.store.Unban(ctx, t.ID, in.Ban, rev)
	if err != nil {
		return nil, err
	}
	s.log.Info("ban ended", "tenant", t.ID, "ban", was.ID)
	return nil, changed(ctx, banBody(was), nil)
}

func flappingBody(t *tenancy.TenantRecord) *flappingOutput {
	return &flappingOutput{ETag: etag(t.Revision), Body: FlappingRequest{t.Flapping}}
}

func (s *Server) flapping(ctx context.Context, _ *tenantInput) (*flappingOutput, error) {
	return flappingBody(tenantOf(ctx)), nil
}

func (s *Server) replaceFlapping(ctx context.Context, in *flappingInput) (*flappingOutput, error) {
	t, err := s.replacePart(ctx, in.Change, "flapping", func(t *tenancy.TenantRecord) any { return t.Flapping }, store.Flapping(in.Body.Rule))
	if err != nil {
		return nil, err
	}
	return flappingBody(t), nil
}
