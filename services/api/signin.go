// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"net/http"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/audit"
	"github.com/manormq/manor/tenancy/store"
)

// AcceptRequest is the body of POST /v1/invitations:accept.
type AcceptRequest struct {
	Invitation tenancy.Secret `json:"invitation" doc:"What the mail, or who invites, says." example:"mi_…"`
	Password   tenancy.Secret `json:"password" doc:"At least 8 characters, with which to sign in." format:"password"`
}

// Accepted is the answer to it.
type Accepted struct {
	Organization OrganizationRef `json:"organization"`
	Member       Member          `json:"member"`
}

// SignInRequest is the body of POST /v1/auth/token.
type SignInRequest struct {
	Organization string         `json:"organization" doc:"The organization's id." example:"org_01j9zq5e6v8x7w0r3t2y4u6i8o"`
	Email        string         `json:"email" example:"dev@acme.example"`
	Password     tenancy.Secret `json:"password" format:"password"`
}

// Token is the answer to it.
type Token struct {
	Token     tenancy.Secret `json:"token,omitempty" doc:"For Authorization: Bearer, as an API key. Shown once." example:"mt_…"`
	ExpiresAt time.Time      `json:"expires_at"`
	Member    Member         `json:"member"`
}

type (
	acceptInput struct {
		Post
		Body AcceptRequest
	}
	acceptOutput struct {
		Status int
		Body   Accepted
	}
	signInInput  struct{ Body SignInRequest }
	signInOutput struct{ Body Token }
)

func (s *Server) signInRoutes() {
	const tag = "Members"
	op := operation("accept-invitation", http.MethodPost, "/v1/invitations:accept", tag, "Accept an invitation with a password of one's own")
	op.Security, op.DefaultStatus = nil, http.StatusOK
	register(s, op, s.acceptInvitation)
	op = operation("sign-in", http.MethodPost, "/v1/auth/token", tag, "Sign in as a member, for 12 hours")
	op.Security = nil
	register(s, op, s.signIn)
	register(s, operation("sign-out", http.MethodDelete, "/v1/auth/token", tag, "Sign out: the token ends"), s.signOut)
}

func (s *Server) acceptInvitation(ctx context.Context, in *acceptInput) (*acceptOutput, error) {
	m, err := s.store.Invited(ctx, string(in.Body.Invitation))
	if err != nil {
		return nil, err
	}
	if err := tenancy.ValidAccountPassword(string(in.Body.Password), m.Email); err != nil {
		return nil, err
	}
	o, err := s.store.Organization(ctx, m.Organization)
	if err != nil {
		return nil, err
	}
	out := &acceptOutput{Status: http.StatusOK, Body: Accepted{Organization: OrganizationRef{ID: o.ID, Name: o.Name}, Member: memberBody(m)}}
	if in.DryRun {
		unchanged(ctx)
		return out, nil
	}
	hash, err := s.cfg.Hasher.Hash(ctx, m.Organization, string(in.Body.Password))
	if err != nil {
		return nil, err
	}
	if err := changeAs(ctx, audit.Actor{Kind: audit.ActorMember, ID: m.ID}, m.Organization, "", "member "+m.ID, memberBody(m)); err != nil {
		return nil, err
	}
	now, err := s.store.Accept(ctx, m, hash)
	if err != nil {
		return nil, err
	}
	out.Body.Member = memberBody(now)
	s.log.Info("invitation accepted", "organization", o.ID, "member", now.ID)
	return out, changed(ctx, memberBody(m), out.Body.Member)
}

// signIn takes as long, and says the same, whether there is such a member or
// not.
func (s *Server) signIn(ctx context.Context, in *signInInput) (*signInOutput, error) {
	b := in.Body
	id := store.MemberID(b.Organization, b.Email)
	if err := s.limiters.signIn(s.now(), id); err != nil {
		return nil, err
	}
	denied := newProblem(http.StatusUnauthorized, "sign_in_failed", "there is no member of that organization with that address and password")
	m, err := s.store.Member(ctx, b.Organization, id)
	if errs.Is(err, errs.NotFound) || err == nil && m.State != store.MemberActive {
		if err := s.cfg.Hasher.Refuse(ctx, callerOf(ctx).address, id, []byte(b.Password)); err != nil {
			return nil, err
		}
		return nil, denied
	}
	if err != nil {
		return nil, err
	}
	ok, err := s.cfg.Hasher.Verify(ctx, callerOf(ctx).address, id, m.Revision, m.PasswordHash, []byte(b.Password))
	if err != nil {
		return nil, err
	}
	if !ok {
		s.log.Info("sign-in refused", "organization", m.Organization, "member", m.ID, "address", callerOf(ctx).address)
		return nil, denied
	}
	if err := changeAs(ctx, audit.Actor{Kind: audit.ActorMember, ID: m.ID}, m.Organization, "", "session of "+m.Email, nil); err != nil {
		return nil, err
	}
	x, token, err := s.store.StartSession(ctx, m)
	if err != nil {
		return nil, err
	}
	body := Token{Token: tenancy.Secret(token), ExpiresAt: x.ExpiresAt, Member: memberBody(m)}
	return &signInOutput{Body: body}, changed(ctx, nil, body)
}

func (s *Server) signOut(ctx context.Context, _ *struct{}) (*struct{}, error) {
	c := callerOf(ctx)
	if c.session == nil {
		return nil, errs.Coded(errs.Invalid, "not_signed_in", "expected the token of a member; an API key ends by being deleted")
	}
	if err := change(ctx, c.member.Organization, "", "session of "+c.member.Email, nil); err != nil {
		return nil, err
	}
	if err := s.store.EndSession(ctx, c.session.ID); err != nil {
		return nil, err
	}
	return nil, changed(ctx, nil, nil)
}
