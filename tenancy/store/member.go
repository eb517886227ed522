// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// States of a member.
const (
	// MemberInvited has not chosen a password yet, and cannot sign in.
	MemberInvited = "invited"
	// MemberActive may sign in.
	MemberActive = "active"
)

// Member is a person in an organization. Somebody in two organizations is two
// members, with a password each: no organization has to believe what another one
// knows of an address. It is a plain value.
type Member struct {
	ID           string `json:"id"`
	Organization string `json:"organization"`
	Email        string `json:"email"`
	tenancy.Access
	State        string `json:"state"`
	PasswordHash string `json:"password_hash,omitempty"`
	// Invitation is the hash of the invitation that is good; empty for none.
	Invitation string `json:"invitation,omitempty"`
	InvitedBy  string `json:"invited_by,omitempty"`
	// Generation tells the member from one who had the address, and so the id,
	// before and was removed. Who signed up has none, nor have older records.
	Generation string    `json:"generation,omitempty"`
	CreatedAt  time.Time `json:"created_at"`
	// Revision is the bucket's; it is not part of the value.
	Revision uint64 `json:"-"`
}

const memberPrefix = "mem_"

// MemberID is the id of the member with that address: it follows from it, so
// that an organization cannot have an address twice.
func MemberID(organization, email string) string {
	sum := sha256.Sum256([]byte(organization + "\x00" + strings.ToLower(email)))
	return memberPrefix + strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:idLength]
}

func memberKey(organization, id string) string { return organization + "." + id }

// Member returns a member of an organization, or an error NotFound.
func (s *Store) Member(ctx context.Context, organization, id string) (*Member, error) {
	e, err := s.members.Get(ctx, memberKey(organization, id))
	if err != nil {
		return nil, named(err, "member_not_found", "there is no member %q", id)
	}
	m := &Member{Revision: uint64(e.Revision)}
	if err := json.Unmarshal(e.Value, m); err != nil {
		return nil, errs.New(errs.Internal, "stored member: %w", err)
	}
	return m, nil
}

// Members returns at most limit members of an organization whose ids come after
// cursor, in order of their ids, and the cursor of the next page, empty at the
// end.
func (s *Store) Members(ctx context.Context, organization, cursor string, limit int) (page []Member, next string, err error) {
	ids, next, err := idsAfter(ctx, s.members, organization, cursor, limit)
	if err != nil {
		return nil, "", err
	}
	for _, id := range ids {
		m, err := s.Member(ctx, organization, id)
		if errs.Is(err, errs.NotFound) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, "", err
		}
		page = append(page, *m)
	}
	return page, next, nil
}

// CheckInvite returns the error that Invite would.
func (s *Store) CheckInvite(ctx context.Context, organization, email string) error {
	if m, err := s.Member(ctx, organization, MemberID(organization, email)); err == nil {
		if m.State == MemberInvited {
			return nil
		}
		return errs.Coded(errs.Conflict, "member_exists", "%s is a member already", email)
	} else if !errs.Is(err, errs.NotFound) {
		return err
	}
	keys, err := s.members.Keys(ctx, organization+".")
	if err != nil {
		return err
	}
	return s.checkQuota(ctx, organization, "members", int64(len(keys)))
}

// InvitationLife is for how long an invitation is good.
const InvitationLife = 7 * 24 * time.Hour

// invitation is what is stored under the hash of its token.
type invitation struct {
	Organization string    `json:"organization"`
	Member       string    `json:"member"`
	CreatedAt    time.Time `json:"created_at"`
}

// invitationPrefix is what the tokens of invitations begin with.
const invitationPrefix = "mi_"

// Invite makes a member that has to accept with the token, which is not kept. An
// address that was invited and has not accepted gets a new token and that
// access, and the old token ends. The error is Conflict with Code
// "member_exists" if the address belongs to a member, and
// tenancy.ExceededError beyond the quota members.
func (s *Store) Invite(ctx context.Context, organization, email, by string, access tenancy.Access) (*Member, string, error) {
	if err := s.CheckInvite(ctx, organization, email); err != nil {
		return nil, "", err
	}
	token := invitationPrefix + bits()
	now := s.now().UTC()
	m := &Member{
		ID: MemberID(organization, email), Organization: organization, Email: email, Access: access, State: MemberInvited,
		Invitation: hashSecret(token), InvitedBy: by, Generation: bits(), CreatedAt: now,
	}
	if _, err := put(ctx, s.invitations, m.Invitation, invitation{organization, m.ID, now}, bus.Absent); err != nil {
		return nil, "", err
	}
	at := bus.Absent
	if old, err := s.Member(ctx, organization, m.ID); err == nil && old.State == MemberInvited {
		at = bus.Revision(old.Revision)
	}
	var err error
	if m.Revision, err = put(ctx, s.members, memberKey(organization, m.ID), m, at); err != nil {
		if errs.Is(err, errs.Conflict) {
			err = errs.Coded(errs.Conflict, "member_exists", "%s was invited or has accepted just now", email)
		}
		return nil, "", err
	}
	return m, token, nil
}

// Invited returns the member who was invited with that token. The error is
// Denied with Code "invitation_invalid" if the token is not good, or no longer.
func (s *Store) Invited(ctx context.Context, token string) (*Member, error) {
	denied := errs.Coded(errs.Denied, "invitation_invalid", "the invitation is not valid; ask for another one")
	hash := hashSecret(token)
	e, err := s.invitations.Get(ctx, hash)
	if errs.Is(err, errs.NotFound) {
		return nil, denied
	}
	if err != nil {
		return nil, err
	}
	var i invitation
	if err := json.Unmarshal(e.Value, &i); err != nil {
		return nil, errs.New(errs.Internal, "stored invitation: %w", err)
	}
	m, err := s.Member(ctx, i.Organization, i.Member)
	if errs.Is(err, errs.NotFound) {
		return nil, denied
	}
	if err != nil {
		return nil, err
	}
	if m.State != MemberInvited || m.Invitation != hash || s.now().Sub(i.CreatedAt) >= InvitationLife {
		return nil, denied
	}
	return m, nil
}

// Accept has the invited member, as Invited returned it, become active with that
// hash of a password. The error is Denied with Code "invitation_invalid" if it
// has changed since.
func (s *Store) Accept(ctx context.Context, invited *Member, passwordHash string) (*Member, error) {
	m := *invited
	m.State, m.Invitation, m.PasswordHash = MemberActive, "", passwordHash
	if m.owns() {
		if err := s.own(ctx, m.Organization, m.ID); err != nil {
			return nil, err
		}
	}
	var err error
	m.Revision, err = put(ctx, s.members, memberKey(m.Organization, m.ID), &m, bus.Revision(invited.Revision))
	if errs.Is(err, errs.Conflict) {
		return nil, errs.Coded(errs.Denied, "invitation_invalid", "the invitation is not valid any more")
	}
	if err != nil {
		return nil, err
	}
	// What is left of it is good for nothing.
	_ = s.invitations.Delete(ctx, invited.Invitation, bus.Any)
	return &m, nil
}

// owns reports whether the member can act as an owner of all of the organization:
// one who is limited to tenants could not appoint another one.
func (m *Member) owns() bool {
	return m.Role == tenancy.RoleOwner && m.State == MemberActive && len(m.Tenants) == 0
}

// own adds a member to the owners.
func (s *Store) own(ctx context.Context, organization, member string) error {
	_, _, err := s.ChangeOrganization(ctx, organization, 0, func(o *Organization) error {
		if !slices.Contains(o.Owners, member) {
			o.Owners = append(o.Owners, member)
		}
		return nil
	})
	return err
}

// disown removes a member from the owners. The error is Conflict with Code
// "last_owner" if no other one of them can act as an owner: an id is listed before
// its member becomes one, which may not have come about.
func (s *Store) disown(ctx context.Context, organization, member string) error {
	_, _, err := s.ChangeOrganization(ctx, organization, 0, func(o *Organization) error {
		i := slices.Index(o.Owners, member)
		if i < 0 {
			return nil
		}
		o.Owners = slices.Delete(o.Owners, i, i+1)
		for _, id := range o.Owners {
			m, err := s.Member(ctx, organization, id)
			if err == nil && m.owns() {
				return nil
			}
			if err != nil && !errs.Is(err, errs.NotFound) {
				return err
			}
		}
		return errs.Coded(errs.Conflict, "last_owner", "an organization keeps at least one owner who is not limited to tenants; appoint another one first")
	})
	return err
}

// CheckAccess returns the error with which SetAccess refuses the member as it is:
// the code of an invitation is known to who invited, and must not become good for
// more than that one could give.
func (m *Member) CheckAccess() error {
	if m.State == MemberInvited {
		return errs.Coded(errs.Conflict, "member_invited", "%s has not accepted the invitation yet; invite again with the new role, which ends the old invitation", m.Email)
	}
	return nil
}

// SetAccess changes what a member may do and returns the member as it was and
// is; see UpdateTenant for ifRevision. The error is Conflict with Code
// "last_owner" where no owner would be left, and "member_invited" before the
// member has accepted.
func (s *Store) SetAccess(ctx context.Context, organization, id string, ifRevision uint64, access tenancy.Access) (was, now *Member, err error) {
	return s.changeMember(ctx, organization, id, ifRevision, func(m *Member) error {
		if err := m.CheckAccess(); err != nil {
			return err
		}
		role := m.Role
		m.Access = access
		switch {
		case m.owns():
			return s.own(ctx, organization, id)
		case role == tenancy.RoleOwner:
			return s.disown(ctx, organization, id)
		}
		return nil
	})
}

// SetMemberPassword gives a member another password.
func (s *Store) SetMemberPassword(ctx context.Context, organization, id, hash string) (was, now *Member, err error) {
	return s.changeMember(ctx, organization, id, 0, func(m *Member) error {
		m.PasswordHash = hash
		return nil
	})
}

func (s *Store) changeMember(ctx context.Context, organization, id string, ifRevision uint64, change func(*Member) error) (was, now *Member, err error) {
	for {
		m, err := s.Member(ctx, organization, id)
		if err != nil {
			return nil, nil, err
		}
		if err := atRevision(m, ifRevision); err != nil {
			return nil, nil, err
		}
		old := *m
		if err := change(m); err != nil {
			return nil, nil, err
		}
		m.Revision, err = put(ctx, s.members, memberKey(organization, id), m, bus.Revision(old.Revision))
		if err == nil || !errs.Is(err, errs.Conflict) {
			return &old, m, err
		}
	}
}

func atRevision(m *Member, ifRevision uint64) error {
	if ifRevision != 0 && m.Revision != ifRevision {
		return errs.Coded(errs.Conflict, "revision_mismatch", "the member is at revision %d, not %d", m.Revision, ifRevision)
	}
	return nil
}

// RemoveMember removes a member, whose sessions end, and returns it as it was;
// see UpdateTenant for ifRevision. The error is Conflict with Code "last_owner"
// where no owner would be left.
func (s *Store) RemoveMember(ctx context.Context, organization, id string, ifRevision uint64) (*Member, error) {
	for {
		m, err := s.Member(ctx, organization, id)
		if err != nil {
			return nil, err
		}
		if err := atRevision(m, ifRevision); err != nil {
			return nil, err
		}
		if m.Role == tenancy.RoleOwner && m.State == MemberActive {
			if err := s.disown(ctx, organization, id); err != nil {
				return nil, err
			}
		}
		err = s.members.Delete(ctx, memberKey(organization, id), bus.Revision(m.Revision))
		if err == nil || !errs.Is(err, errs.Conflict) {
			return m, err
		}
	}
}
