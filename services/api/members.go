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

// Member is a person in an organization.
type Member struct {
	ID      string   `json:"id" example:"mem_qk2x5vyd3l7w4c6n8p0r1s9t2u"`
	Email   string   `json:"email" example:"dev@acme.example"`
	Role    string   `json:"role" enum:"owner,admin,developer,billing,viewer"`
	Tenants []string `json:"tenants,omitempty" doc:"The ids of the tenants to which the member is limited; left out, it is not."`
	State   string   `json:"state" enum:"invited,active" doc:"invited has not accepted yet, and cannot sign in."`
	// InvitedBy is empty for who signed up.
	InvitedBy string    `json:"invited_by,omitempty" doc:"The id of the key or member that invited."`
	CreatedAt time.Time `json:"created_at"`
}

// MemberList is a page of members.
type MemberList struct {
	Items []Member `json:"items"`
	Next  *string  `json:"next" doc:"The cursor of the next page; null at the end."`
}

// MemberAccess is what a member may do.
type MemberAccess struct {
	Role    string   `json:"role" enum:"owner,admin,developer,billing,viewer"`
	Tenants []string `json:"tenants,omitempty" doc:"The ids of the tenants to which the member is limited; left out, it is not."`
}

func (a MemberAccess) access() tenancy.Access {
	return tenancy.Access{Role: a.Role, Tenants: a.Tenants}
}

// InviteRequest is the body of POST …/members.
type InviteRequest struct {
	Email string `json:"email" example:"dev@acme.example"`
	MemberAccess
}

// InvitedMember is a member with the invitation.
type InvitedMember struct {
	Member
	Invitation tenancy.Secret `json:"invitation,omitempty" doc:"With what the invitation is accepted, within 7 days. Shown once, and only where this installation sends no mail." example:"mi_…"`
}

// InMember is a request about a member. Its name is exported because only then
// huma sees what is embedded.
type InMember struct {
	InOrganization
	Member string `path:"member" doc:"The member's id." example:"mem_qk2x5vyd3l7w4c6n8p0r1s9t2u"`
}

type (
	listMembersInput struct {
		InOrganization
		Paged
	}
	listMembersOutput struct{ Body MemberList }
	memberInput       struct{ InMember }
	memberOutput      struct {
		ETag string `header:"ETag"`
		Body Member
	}
	inviteInput struct {
		InOrganization
		Post
		Body InviteRequest
	}
	inviteOutput struct {
		Status int
		ETag   string `header:"ETag"`
		Body   InvitedMember
	}
	updateMemberInput struct {
		InMember
		Change
		Body MemberAccess
	}
	removeMemberInput struct {
		InMember
		Change
	}
)

func (s *Server) memberRoutes() {
	const base, tag = inOrganizations + "/members", "Members"
	register(s, operation("list-members", http.MethodGet, base, tag, "List members"), s.listMembers)
	op := operation("invite-member", http.MethodPost, base, tag, "Invite a member, who may do no more than the caller; again, with another invitation, while it is not accepted")
	describeDryRun(s, &op, InvitedMember{})
	register(s, op, s.inviteMember)
	register(s, operation("get-member", http.MethodGet, base+"/{member}", tag, "Get a member"), s.getMember)
	register(s, operation("update-member", http.MethodPatch, base+"/{member}", tag, "Change what a member may do, from the next request on"), s.updateMember)
	register(s, operation("remove-member", http.MethodDelete, base+"/{member}", tag, "Remove a member, who is signed out"), s.removeMember)
}

func memberBody(m *store.Member) Member {
	return Member{ID: m.ID, Email: m.Email, Role: m.Role, Tenants: m.Tenants, State: m.State, InvitedBy: m.InvitedBy, CreatedAt: m.CreatedAt}
}

func (s *Server) listMembers(ctx context.Context, in *listMembersInput) (*listMembersOutput, error) {
	after, err := readCursor(in.Cursor)
	if err != nil {
		return nil, err
	}
	page, next, err := s.store.Members(ctx, in.Organization, after, in.Limit)
	if err != nil {
		return nil, err
	}
	out := &listMembersOutput{Body: MemberList{Items: []Member{}, Next: writeCursor(next)}}
	for i := range page {
		out.Body.Items = append(out.Body.Items, memberBody(&page[i]))
	}
	return out, nil
}

func (s *Server) getMember(ctx context.Context, in *memberInput) (*memberOutput, error) {
	m, err := s.store.Member(ctx, in.Organization, in.Member)
	if err != nil {
		return nil, err
	}
	return &memberOutput{ETag: etag(m.Revision), Body: memberBody(m)}, nil
}

// validMemberAccess is validAccess for a member. One who is limited to tenants
// cannot do what an organization keeps an owner for.
func (s *Server) validMemberAccess(ctx context.Context, organization string, a tenancy.Access) error {
	if a.Role == tenancy.RoleOwner && len(a.Tenants) > 0 {
		return errs.Coded(errs.Invalid, "access_invalid", "expected an owner without tenants, because an owner is of the whole organization; leave them out, or choose another role")
	}
	return s.validAccess(ctx, organization, a)
}

func (s *Server) inviteMember(ctx context.Context, in *inviteInput) (*inviteOutput, error) {
	access := in.Body.access()
	if err := tenancy.ValidEmail(in.Body.Email); err != nil {
		return nil, err
	}
	if err := s.validMemberAccess(ctx, in.Organization, access); err != nil {
		return nil, err
	}
	if err := s.store.CheckInvite(ctx, in.Organization, in.Body.Email); err != nil {
		return nil, err
	}
	by := callerOf(ctx).actor.ID
	if in.DryRun {
		unchanged(ctx)
		return &inviteOutput{Status: http.StatusOK, Body: InvitedMember{Member: memberBody(&store.Member{
			ID: store.MemberID(in.Organization, in.Body.Email), Email: in.Body.Email, Access: access, State: store.MemberInvited, InvitedBy: by, CreatedAt: s.now().UTC(),
		})}}, nil
	}
	// Who was invited before may have been given more than the caller may give.
	var before any
	if old, err := s.store.Member(ctx, in.Organization, store.MemberID(in.Organization, in.Body.Email)); err == nil {
		if err := s.mayGive(ctx, old.Access); err != nil {
			return nil, err
		}
		before = memberBody(old)
	}
	o, err := s.store.Organization(ctx, in.Organization)
	if err != nil {
		return nil, err
	}
	if err := change(ctx, in.Organization, "", "member "+in.Body.Email, before); err != nil {
		return nil, err
	}
	m, token, err := s.store.Invite(ctx, in.Organization, in.Body.Email, by, access)
	if err != nil {
		return nil, err
	}
	body := InvitedMember{Member: memberBody(m)}
	if s.cfg.Mailer == nil {
		body.Invitation = tenancy.Secret(token)
	} else if err := s.cfg.Mailer.Send(ctx, invitationMail(o.Name, m.Email, token)); err != nil {
		return nil, errs.Coded(errs.Unavailable, "mail_unavailable", "the invitation could not be sent; invite again: %w", err)
	}
	s.log.Info("member invited", "organization", in.Organization, "member", m.ID, "role", m.Role)
	return &inviteOutput{Status: http.StatusCreated, ETag: etag(m.Revision), Body: body}, changed(ctx, before, body)
}

// heldMember returns a member whom the caller may change: not a more powerful
// one.
func (s *Server) heldMember(ctx context.Context, organization, id string, rev uint64) (*store.Member, error) {
	m, err := s.store.Member(ctx, organization, id)
	if err != nil {
		return nil, err
	}
	if err := s.mayGive(ctx, m.Access); err != nil {
		return nil, err
	}
	return m, matches(rev, m.Revision, "member "+id)
}

func (s *Server) updateMember(ctx context.Context, in *updateMemberInput) (*memberOutput, error) {
	rev, err := ifMatch(in.IfMatch, "member "+in.Member)
	if err != nil {
		return nil, err
	}
	if err := s.validMemberAccess(ctx, in.Organization, in.Body.access()); err != nil {
		return nil, err
	}
	m, err := s.heldMember(ctx, in.Organization, in.Member, rev)
	if err != nil {
		return nil, err
	}
	if err := m.CheckAccess(); err != nil {
		return nil, err
	}
	if in.DryRun {
		unchanged(ctx)
		m.Access = in.Body.access()
		return &memberOutput{ETag: etag(m.Revision), Body: memberBody(m)}, nil
	}
	if err := change(ctx, in.Organization, "", "member "+m.ID, memberBody(m)); err != nil {
		return nil, err
	}
	was, now, err := s.store.SetAccess(ctx, in.Organization, in.Member, rev, in.Body.access())
	if err != nil {
		return nil, err
	}
	s.log.Info("member changed", "organization", in.Organization, "member", m.ID, "role", now.Role)
	return &memberOutput{ETag: etag(now.Revision), Body: memberBody(now)}, changed(ctx, memberBody(was), memberBody(now))
}

func (s *Server) removeMember(ctx context.Context, in *removeMemberInput) (*struct{}, error) {
	rev, err := ifMatch(in.IfMatch, "member "+in.Member)
	if err != nil {
		return nil, err
	}
	m, err := s.heldMember(ctx, in.Organization, in.Member, rev)
	if err != nil {
		return nil, err
	}
	if in.DryRun {
		unchanged(ctx)
		return nil, nil
	}
	if err := change(ctx, in.Organization, "", "member "+m.ID, memberBody(m)); err != nil {
		return nil, err
	}
	was, err := s.store.RemoveMember(ctx, in.Organization, in.Member, rev)
	if err != nil {
		return nil, err
	}
	s.log.Info("member removed", "organization", in.Organization, "member", m.ID)
	return nil, changed(ctx, memberBody(was), nil)
}
