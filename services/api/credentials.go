// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"net/http"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/authn/password"
	"github.com/manormq/manor/tenancy/authn/scram"
)

// CredentialRequest is the body of POST …/credentials.
type CredentialRequest struct {
	Username string          `json:"username" doc:"1 to 256 bytes." example:"sensor-1"`
	Password *tenancy.Secret `json:"password,omitempty" doc:"At least 6 characters; generated, if left out." format:"password"`
	// SCRAM is a pointer so that leaving it out is told from false.
	SCRAM   *bool                    `json:"scram,omitempty" doc:"Whether clients may authenticate with SCRAM-SHA-256 (MQTT 5, AUTH): true if left out and the password is generated, else false."`
	Session *tenancy.SessionOverride `json:"session,omitempty" doc:"Settings that replace the tenant's in this credential's sessions, and quotas where they are narrower."`
}

// CreatedCredential is the answer to it.
type CreatedCredential struct {
	ID       string         `json:"id,omitempty" example:"cred_01j9zq5e6v8x7w0r3t2y4u6i8o"`
	Username string         `json:"username" example:"sensor-1"`
	Password tenancy.Secret `json:"password,omitempty" doc:"Shown once, when it was generated."`
}

// Credential is a credential in a list.
type Credential struct {
	ID        string    `json:"id"`
	Username  string    `json:"username"`
	SCRAM     bool      `json:"scram" doc:"Whether clients may authenticate with SCRAM-SHA-256."`
	CreatedAt time.Time `json:"created_at"`
	Source    string    `json:"source,omitempty" enum:"vmq_passwd" doc:"The kind of the file that it comes from, and goes with; empty for one that was made by the API."`
	// Session is nil for most.
	Session *tenancy.SessionOverride `json:"session,omitempty"`
}

// CredentialList is a page of credentials.
type CredentialList struct {
	Items []Credential `json:"items"`
	Next  *string      `json:"next" doc:"The cursor of the next page; null at the end."`
}

type (
	createCredentialInput struct {
		InTenant
		Post
		Body CredentialRequest
	}
	createCredentialOutput struct {
		Status int
		ETag   string `header:"ETag"`
		Body   CreatedCredential
	}
	listCredentialsInput struct {
		InTenant
		Paged
	}
	listCredentialsOutput struct{ Body CredentialList }
	deleteCredentialInput struct {
		InTenant
		Change
		Username string `path:"username" doc:"The credential's username, percent-encoded." example:"sensor-1"`
	}
)

type (
	sessionInput struct {
		InTenant
		Change
		Username string                  `path:"username" doc:"The credential's username, percent-encoded." example:"sensor-1"`
		Body     tenancy.SessionOverride `doc:"Settings and quotas; what is missing is the tenant's."`
	}
	sessionOutput struct {
		ETag string `header:"ETag"`
		Body tenancy.SessionOverride
	}
)

func (s *Server) replaceSession(ctx context.Context, in *sessionInput) (*sessionOutput, error) {
	t := tenantOf(ctx)
	rev, err := ifMatch(in.IfMatch, "credential "+in.Username)
	if err != nil {
		return nil, err
	}
	if err := in.Body.Valid(); err != nil {
		return nil, err
	}
	if in.DryRun {
		c, err := s.store.Credential(ctx, t.ID, in.Username)
		if err != nil {
			return nil, err
		}
		unchanged(ctx)
		return &sessionOutput{ETag: etag(c.Revision), Body: in.Body}, nil
	}
	if err := change(ctx, t.Organization, t.ID, "session of credential "+in.Username, nil); err != nil {
		return nil, err
	}
	was, now, err := s.store.SetSession(ctx, t.ID, in.Username, rev, &in.Body)
	if err != nil {
		return nil, err
	}
	s.log.Info("session of a credential replaced", "tenant", t.ID, "username", in.Username)
	return &sessionOutput{ETag: etag(now.Revision), Body: in.Body}, changed(ctx, was.Session, now.Session)
}

func (s *Server) credentialRoutes() {
	const base = "/v1/tenants/{tenant}/credentials"
	op := operation("create-credential", http.MethodPost, base, "Credentials", "Make a credential")
	describeDryRun(s, &op, CreatedCredential{})
	register(s, op, s.createCredential)
	register(s, operation("list-credentials", http.MethodGet, base, "Credentials", "List credentials in order of their usernames"), s.listCredentials)
	s.sourceRoutes()
	register(s, operation("replace-credential-session", http.MethodPut, base+"/{username}/session", "Credentials",
		"Replace what holds for a credential's sessions over the tenant's; live sessions hear of it within 2 s"), s.replaceSession)
	register(s, operation("delete-credential", http.MethodDelete, base+"/{username}", "Credentials",
		"Delete a credential; its clients are disconnected within 2 s"), s.deleteCredential)
}

func (s *Server) createCredential(ctx context.Context, in *createCredentialInput) (*createCredentialOutput, error) {
	t, username := tenantOf(ctx), in.Body.Username
	if err := tenancy.ValidUsername(username); err != nil {
		return nil, err
	}
	if in.Body.Password != nil {
		if err := tenancy.ValidDevicePassword(string(*in.Body.Password), username); err != nil {
			return nil, err
		}
	}
	if err := in.Body.Session.Valid(); err != nil {
		return nil, err
	}
	// Before anything is hashed.
	if err := s.store.CheckCredential(ctx, t, username); err != nil {
		return nil, err
	}
	if in.DryRun {
		unchanged(ctx)
		return &createCredentialOutput{Status: http.StatusOK, Body: CreatedCredential{Username: username}}, nil
	}
	var shown, hash string
	var err error
	if in.Body.Password != nil {
		hash, err = s.cfg.Hasher.Hash(ctx, in.Tenant, string(*in.Body.Password))
	} else {
		shown, hash, err = password.Generate()
	}
	if err != nil {
		return nil, err
	}
	like := tenancy.Credential{Username: username, Hash: hash, Session: in.Body.Session}
	switch wanted := in.Body.SCRAM; {
	case in.Body.Password != nil && wanted != nil && *wanted:
		like.SCRAM, err = scram.Derive(string(*in.Body.Password), scram.IterationsChosen)
	case in.Body.Password == nil && (wanted == nil || *wanted):
		like.SCRAM, err = scram.Derive(shown, scram.IterationsGenerated)
	}
	if err != nil {
		return nil, err
	}
	if err := change(ctx, t.Organization, t.ID, "credential "+username, nil); err != nil {
		return nil, err
	}
	c, err := s.store.AddCredential(ctx, t, like)
	if err != nil {
		return nil, err
	}
	s.uses(ctx, t, "credentials", 1, s.store.CountCredentials)
	return &createCredentialOutput{
		Status: http.StatusCreated, ETag: etag(c.Revision),
		Body: CreatedCredential{ID: c.ID, Username: username, Password: tenancy.Secret(shown)},
	}, changed(ctx, nil, credentialBody(c))
}

func (s *Server) listCredentials(ctx context.Context, in *listCredentialsInput) (*listCredentialsOutput, error) {
	after, err := readCursor(in.Cursor)
	if err != nil {
		return nil, err
	}
	page, next, err := s.store.Credentials(ctx, tenantOf(ctx).ID, after, in.Limit)
	if err != nil {
		return nil, err
	}
	out := &listCredentialsOutput{Body: CredentialList{Items: []Credential{}, Next: writeCursor(next)}}
	for i := range page {
		out.Body.Items = append(out.Body.Items, credentialBody(&page[i]))
	}
	return out, nil
}

func credentialBody(c *tenancy.Credential) Credential {
	return Credential{ID: c.ID, Username: c.Username, SCRAM: c.SCRAM != nil, CreatedAt: c.CreatedAt, Source: c.Source, Session: c.Session}
}

func (s *Server) deleteCredential(ctx context.Context, in *deleteCredentialInput) (*struct{}, error) {
	t := tenantOf(ctx)
	rev, err := ifMatch(in.IfMatch, "credential "+in.Username)
	if err != nil {
		return nil, err
	}
	c, err := s.store.Credential(ctx, t.ID, in.Username)
	if err != nil {
		return nil, err
	}
	if err := matches(rev, c.Revision, "credential "+in.Username); err != nil {
		return nil, err
	}
	if in.DryRun {
		unchanged(ctx)
		return nil, nil
	}
	if err := change(ctx, t.Organization, t.ID, "credential "+in.Username, credentialBody(c)); err != nil {
		return nil, err
	}
	was, err := s.store.RemoveCredential(ctx, t.ID, in.Username, rev)
	if err != nil {
		return nil, err
	}
	s.log.Info("credential deleted", "tenant", t.ID, "username", in.Username)
	return nil, changed(ctx, credentialBody(was), nil)
}

// A cursor is the last name of the page before, in base64url and after a
// checksum: nothing that a client should make by itself.
func writeCursor(name string) *string {
	if name == "" {
		return nil
	}
	c := base64.RawURLEncoding.EncodeToString(append(cursorSum(name), name...))
	return &c
}

func readCursor(cursor string) (string, error) {
	if cursor == "" {
		return "", nil
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	if err != nil || len(b) <= crc32.Size || !bytes.Equal(b[:crc32.Size], cursorSum(string(b[crc32.Size:]))) {
		return "", errs.Coded(errs.Invalid, "cursor_invalid", "expected the next of an earlier page as cursor")
	}
	return string(b[crc32.Size:]), nil
}

// cursorSum tells cursors of ours from guesses; it keeps no secret.
func cursorSum(name string) []byte {
	return binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE([]byte("manor cursor 1 "+name)))
}
