// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/store"
)

// Key is an API key without its secret.
type Key struct {
	ID   string `json:"id" example:"key_01j9zq5e6v8x7w0r3t2y4u6i8o"`
	Name string `json:"name" example:"ci"`
	Access
	CreatedAt     time.Time  `json:"created_at"`
	CreatedBy     string     `json:"created_by,omitempty" doc:"The id of the key or member that made it."`
	ExpiresAt     *time.Time `json:"expires_at,omitempty" doc:"When it ends; left out if never."`
	PreviousUntil *time.Time `json:"previous_until,omitempty" doc:"Until when the secret before the last rotation holds too."`
	LastUsedAt    *time.Time `json:"last_used_at,omitempty" doc:"To the minute; left out if never."`
	LastUsedFrom  string     `json:"last_used_from,omitempty" doc:"The IP address." example:"192.0.2.1"`
}

// KeyList is a page of API keys.
type KeyList struct {
	Items []Key   `json:"items"`
	Next  *string `json:"next" doc:"The cursor of the next page; null at the end."`
}

// KeyRequest is the body of POST …/api-keys.
type KeyRequest struct {
	Name string `json:"name" doc:"1 to 128 characters." example:"ci"`
	Access
	ExpiresAt *time.Time `json:"expires_at,omitempty" doc:"When it ends; left out, never."`
}

// KeyUpdate is the body of PATCH …/api-keys/{key}.
type KeyUpdate struct {
	Name      *string    `json:"name,omitempty"`
	ExpiresAt *time.Time `json:"expires_at,omitempty" doc:"When it ends; it may not be in the past."`
}

// RotateRequest is the body of POST …/api-keys/{key}:rotate.
type RotateRequest struct {
	Overlap string `json:"overlap,omitempty" default:"24h" doc:"For how long the old secret holds beside the new one: 0s to 720h." example:"24h"`
}

// KeySecret is an API key with its secret.
type KeySecret struct {
	Key
	Secret tenancy.Secret `json:"secret,omitempty" doc:"Shown once." example:"mk_…"`
}

// InAPIKey is a request about an API key. Its name is exported because only then
// huma sees what is embedded.
type InAPIKey struct {
	InOrganization
	Key string `path:"key" doc:"The key's id." example:"key_01j9zq5e6v8x7w0r3t2y4u6i8o"`
}

type (
	listAPIKeysInput struct {
		InOrganization
		Paged
	}
	listAPIKeysOutput struct{ Body KeyList }
	apiKeyInput       struct{ InAPIKey }
	apiKeyOutput      struct {
		ETag string `header:"ETag"`
		Body Key
	}
	createAPIKeyInput struct {
		InOrganization
		Post
		Body KeyRequest
	}
	apiKeySecretOutput struct {
		Status int
		ETag   string `header:"ETag"`
		Body   KeySecret
	}
	updateAPIKeyInput struct {
		InAPIKey
		Change
		Body KeyUpdate
	}
	rotateAPIKeyInput struct {
		InAPIKey
		Post
		IfMatch string `header:"If-Match" doc:"An ETag; the request fails with 412 if the key has changed since."`
		Body    RotateRequest
	}
	deleteAPIKeyInput struct {
		InAPIKey
		Change
	}
)

func (s *Server) apiKeyRoutes() {
	const base, tag = inOrganizations + "/api-keys", "API keys"
	register(s, operation("list-api-keys", http.MethodGet, base, tag, "List API keys, the oldest first"), s.listAPIKeys)
	op := operation("create-api-key", http.MethodPost, base, tag, "Make an API key that may do no more than the caller")
	describeDryRun(s, &op, KeySecret{})
	register(s, op, s.createAPIKey)
	register(s, operation("get-api-key", http.MethodGet, base+"/{key}", tag, "Get an API key"), s.getAPIKey)
	register(s, operation("update-api-key", http.MethodPatch, base+"/{key}", tag, "Change what is given of an API key"), s.updateAPIKey)
	op = operation("rotate-api-key", http.MethodPost, base+"/{key}:rotate", tag, "Give an API key a new secret, beside which the old one holds for a while")
	op.DefaultStatus = http.StatusOK
	register(s, op, s.rotateAPIKey)
	register(s, operation("delete-api-key", http.MethodDelete, base+"/{key}", tag, "Delete an API key, which ends at once"), s.deleteAPIKey)
}

func apiKeyBody(k *store.APIKey) Key {
	out := Key{ID: k.ID, Name: k.Name, Access: accessBody(k.Access), CreatedAt: k.CreatedAt, CreatedBy: k.CreatedBy}
	if !k.ExpiresAt.IsZero() {
		out.ExpiresAt = &k.ExpiresAt
	}
	if k.Previous != nil {
		out.PreviousUntil = &k.Previous.ValidUntil
	}
	return out
}

// shownAPIKey is a key with its use.
func (s *Server) shownAPIKey(ctx context.Context, k *store.APIKey) (Key, error) {
	out := apiKeyBody(k)
	u, err := s.store.LastUse(ctx, k.ID)
	if err == nil && !u.At.IsZero() {
		out.LastUsedAt, out.LastUsedFrom = &u.At, u.Address
	}
	return out, err
}

func (s *Server) listAPIKeys(ctx context.Context, in *listAPIKeysInput) (*listAPIKeysOutput, error) {
	after, err := readCursor(in.Cursor)
	if err != nil {
		return nil, err
	}
	page, next, err := s.store.APIKeys(ctx, in.Organization, after, in.Limit)
	if err != nil {
		return nil, err
	}
	out := &listAPIKeysOutput{Body: KeyList{Items: []Key{}, Next: writeCursor(next)}}
	for i := range page {
		k, err := s.shownAPIKey(ctx, &page[i])
		if err != nil {
			return nil, err
		}
		out.Body.Items = append(out.Body.Items, k)
	}
	return out, nil
}

func (s *Server) getAPIKey(ctx context.Context, in *apiKeyInput) (*apiKeyOutput, error) {
	k, err := s.store.APIKey(ctx, in.Organization, in.Key)
	if err != nil {
		return nil, err
	}
	body, err := s.shownAPIKey(ctx, k)
	return &apiKeyOutput{ETag: etag(k.Revision), Body: body}, err
}

// keyNameMax is the longest name of an API key, in characters.
const keyNameMax = 128

func validKeyName(name string) error {
	n := utf8.RuneCountInString(name)
	if n < 1 || n > keyNameMax || strings.ContainsFunc(name, func(r rune) bool { return r < 0x20 || r == 0x7F }) {
		return errs.Coded(errs.Invalid, "api_key_name_invalid", "the name of an API key has 1 to %d characters, none of them control characters", keyNameMax)
	}
	return nil
}

func (s *Server) validExpiry(at *time.Time) error {
	if at != nil && !at.After(s.now()) {
		return errs.Coded(errs.Invalid, "expires_at_invalid", "expected a time in the future, found %s", at.Format(time.RFC3339))
	}
	return nil
}

// mayLast returns an error Denied with Code "grant_exceeds" if the caller is a key
// that ends before the time, of which zero is never: else it would go on under
// another secret.
func mayLast(ctx context.Context, at time.Time) error {
	k := callerOf(ctx).key
	if k == nil || k.ExpiresAt.IsZero() || !at.IsZero() && !at.After(k.ExpiresAt) {
		return nil
	}
	found := "never"
	if !at.IsZero() {
		found = at.Format(time.RFC3339Nano)
	}
	return errs.Coded(errs.Denied, "grant_exceeds", "expected a key with expires_at not after %s, when the caller itself ends, found %s", k.ExpiresAt.Format(time.RFC3339Nano), found)
}

// validAccess checks what somebody is to be given: its form, that its tenants are
// of the organization, and that the caller has it.
func (s *Server) validAccess(ctx context.Context, organization string, a tenancy.Access) error {
	if err := a.Valid(); err != nil {
		return err
	}
	if len(a.Tenants) > 0 {
		o, err := s.store.Organization(ctx, organization)
		if err != nil {
			return err
		}
		for _, t := range a.Tenants {
			if !slices.Contains(o.Tenants, t) {
				return errs.Coded(errs.Invalid, "tenant_unknown", "the organization has no tenant %q", t)
			}
		}
	}
	return s.mayGive(ctx, a)
}

func (s *Server) createAPIKey(ctx context.Context, in *createAPIKeyInput) (*apiKeySecretOutput, error) {
	n := store.NewKey{Name: strings.TrimSpace(in.Body.Name), Access: tenancy.Access(in.Body.Access), CreatedBy: callerOf(ctx).actor.ID}
	if err := validKeyName(n.Name); err != nil {
		return nil, err
	}
	if err := s.validExpiry(in.Body.ExpiresAt); err != nil {
		return nil, err
	}
	if in.Body.ExpiresAt != nil {
		n.ExpiresAt = in.Body.ExpiresAt.UTC()
	}
	if err := mayLast(ctx, n.ExpiresAt); err != nil {
		return nil, err
	}
	if err := s.validAccess(ctx, in.Organization, n.Access); err != nil {
		return nil, err
	}
	if err := s.store.CheckAPIKeys(ctx, in.Organization); err != nil {
		return nil, err
	}
	if in.DryRun {
		unchanged(ctx)
		return &apiKeySecretOutput{Status: http.StatusOK, Body: KeySecret{Key: apiKeyBody(&store.APIKey{
			Name: n.Name, Access: n.Access, ExpiresAt: n.ExpiresAt, CreatedBy: n.CreatedBy, CreatedAt: s.now().UTC(),
		})}}, nil
	}
	if err := change(ctx, in.Organization, "", "API key "+n.Name, nil); err != nil {
		return nil, err
	}
	k, secret, err := s.store.AddAPIKey(ctx, in.Organization, n)
	if err != nil {
		return nil, err
	}
	body := KeySecret{Key: apiKeyBody(k), Secret: tenancy.Secret(secret)}
	s.log.Info("API key made", "organization", in.Organization, "key", k.ID)
	return &apiKeySecretOutput{Status: http.StatusCreated, ETag: etag(k.Revision), Body: body}, changed(ctx, nil, body)
}

// heldAPIKey returns a key that the caller may change: not a more powerful one,
// whose secret it could take over.
func (s *Server) heldAPIKey(ctx context.Context, organization, id string, rev uint64) (*store.APIKey, error) {
	k, err := s.store.APIKey(ctx, organization, id)
	if err != nil {
		return nil, err
	}
	if err := s.mayGive(ctx, k.Access); err != nil {
		return nil, err
	}
	return k, matches(rev, k.Revision, "API key "+id)
}

func (s *Server) updateAPIKey(ctx context.Context, in *updateAPIKeyInput) (*apiKeyOutput, error) {
	rev, err := ifMatch(in.IfMatch, "API key "+in.Key)
	if err != nil {
		return nil, err
	}
	if in.Body.Name == nil && in.Body.ExpiresAt == nil {
		return nil, errs.Coded(errs.Invalid, "request_invalid", "expected name or expires_at")
	}
	if in.Body.Name != nil {
		if err := validKeyName(strings.TrimSpace(*in.Body.Name)); err != nil {
			return nil, err
		}
	}
	if err := s.validExpiry(in.Body.ExpiresAt); err != nil {
		return nil, err
	}
	k, err := s.heldAPIKey(ctx, in.Organization, in.Key, rev)
	if err != nil {
		return nil, err
	}
	if in.Body.ExpiresAt != nil {
		if err := mayLast(ctx, in.Body.ExpiresAt.UTC()); err != nil {
			return nil, err
		}
	}
	apply := func(k *store.APIKey) error {
		if in.Body.Name != nil {
			k.Name = strings.TrimSpace(*in.Body.Name)
		}
		if in.Body.ExpiresAt != nil {
			k.ExpiresAt = in.Body.ExpiresAt.UTC()
		}
		return nil
	}
	if in.DryRun {
		unchanged(ctx)
		_ = apply(k) // it never fails
		return &apiKeyOutput{ETag: etag(k.Revision), Body: apiKeyBody(k)}, nil
	}
	if err := change(ctx, in.Organization, "", "API key "+k.ID, apiKeyBody(k)); err != nil {
		return nil, err
	}
	was, now, err := s.store.ChangeAPIKey(ctx, in.Organization, in.Key, rev, apply)
	if err != nil {
		return nil, err
	}
	return &apiKeyOutput{ETag: etag(now.Revision), Body: apiKeyBody(now)}, changed(ctx, apiKeyBody(was), apiKeyBody(now))
}

func (s *Server) rotateAPIKey(ctx context.Context, in *rotateAPIKeyInput) (*apiKeySecretOutput, error) {
	rev, err := ifMatch(in.IfMatch, "API key "+in.Key)
	if err != nil {
		return nil, err
	}
	overlap, err := time.ParseDuration(in.Body.Overlap)
	if err != nil || overlap < 0 || overlap > store.OverlapMax {
		return nil, errs.Coded(errs.Invalid, "overlap_invalid", "expected an overlap of 0s to %s, found %q", store.OverlapMax, in.Body.Overlap)
	}
	k, err := s.heldAPIKey(ctx, in.Organization, in.Key, rev)
	if err != nil {
		return nil, err
	}
	if err := mayLast(ctx, k.ExpiresAt); err != nil {
		return nil, err
	}
	if in.DryRun {
		unchanged(ctx)
		return &apiKeySecretOutput{Status: http.StatusOK, ETag: etag(k.Revision), Body: KeySecret{Key: apiKeyBody(k)}}, nil
	}
	if err := change(ctx, in.Organization, "", "API key "+k.ID, apiKeyBody(k)); err != nil {
		return nil, err
	}
	was, now, secret, err := s.store.RotateAPIKey(ctx, in.Organization, in.Key, rev, overlap)
	if err != nil {
		return nil, err
	}
	body := KeySecret{Key: apiKeyBody(now), Secret: tenancy.Secret(secret)}
	s.log.Info("API key rotated", "organization", in.Organization, "key", now.ID, "overlap", overlap)
	return &apiKeySecretOutput{Status: http.StatusOK, ETag: etag(now.Revision), Body: body}, changed(ctx, apiKeyBody(was), body)
}

func (s *Server) deleteAPIKey(ctx context.Context, in *deleteAPIKeyInput) (*struct{}, error) {
	rev, err := ifMatch(in.IfMatch, "API key "+in.Key)
	if err != nil {
		return nil, err
	}
	k, err := s.heldAPIKey(ctx, in.Organization, in.Key, rev)
	if err != nil {
		return nil, err
	}
	if in.DryRun {
		unchanged(ctx)
		return nil, nil
	}
	if err := change(ctx, in.Organization, "", "API key "+k.ID, apiKeyBody(k)); err != nil {
		return nil, err
	}
	was, err := s.store.RemoveAPIKey(ctx, in.Organization, in.Key, rev)
	if err != nil {
		return nil, err
	}
	s.log.Info("API key deleted", "organization", in.Organization, "key", k.ID)
	return nil, changed(ctx, apiKeyBody(was), nil)
}
