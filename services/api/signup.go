// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/authn/password"
	"github.com/manormq/manor/tenancy/authn/scram"
	"github.com/manormq/manor/tenancy/store"
)

// defaultUsername is the credential that a sign-up makes.
const defaultUsername = "default"

// SignUpRequest is the body of POST /v1/signup.
type SignUpRequest struct {
	Organization string         `json:"organization" doc:"The organization's name." example:"Acme"`
	Email        string         `json:"email" doc:"Where its people are reached." example:"ops@acme.example"`
	Password     tenancy.Secret `json:"password" doc:"At least 8 characters." format:"password"`
	Tenant       string         `json:"tenant" doc:"The tenant's id: a lower case DNS label of 3 to 63 characters, which becomes its hostname." example:"acme"`
	Region       string         `json:"region,omitempty" doc:"The only region, if left out." example:"local"`
	Plan         string         `json:"plan,omitempty" doc:"The installation's default plan, if left out." example:"dev"`
}

// SignUpAnswer is the answer to a sign-up. Its secrets are shown once.
type SignUpAnswer struct {
	Organization OrganizationRef `json:"organization"`
	Tenant       Tenant          `json:"tenant"`
	APIKey       NewAPIKey       `json:"api_key"`
	Credential   NewCredential   `json:"credential"`
}

// OrganizationRef names an organization.
type OrganizationRef struct {
	ID   string `json:"id,omitempty" example:"org_01j9zq5e6v8x7w0r3t2y4u6i8o"`
	Name string `json:"name" example:"Acme"`
}

// NewAPIKey is an API key with its secret.
type NewAPIKey struct {
	ID     string         `json:"id,omitempty" example:"key_01j9zq5e6v8x7w0r3t2y4u6i8o"`
	Secret tenancy.Secret `json:"secret,omitempty" doc:"Shown once." example:"mk_…"`
}

// NewCredential is the first credential with its password.
type NewCredential struct {
	Username      string         `json:"username" doc:"Where the hostname names the tenant (TLS, WebSocket)." example:"default"`
	UsernamePlain string         `json:"username_plain" doc:"Where nothing else names the tenant (port 1883)." example:"acme:default"`
	Password      tenancy.Secret `json:"password,omitempty" doc:"Shown once."`
}

// TenantEndpoints are the URLs at which a tenant's clients connect.
type TenantEndpoints struct {
	MQTT  string `json:"mqtt,omitempty" example:"mqtt://acme.localhost:1883"`
	MQTTS string `json:"mqtts,omitempty" example:"mqtts://acme.localhost:8883"`
	WS    string `json:"ws,omitempty" example:"ws://acme.localhost:8083/mqtt"`
	WSS   string `json:"wss,omitempty" example:"wss://acme.localhost:8084/mqtt"`
}

// Tenant is a tenant as a sign-up answers it.
type Tenant struct {
	ID        string          `json:"id" example:"acme"`
	Region    string          `json:"region" example:"local"`
	Plan      string          `json:"plan" example:"dev"`
	State     tenancy.State   `json:"state" example:"active"`
	Hostname  string          `json:"hostname" example:"acme.localhost"`
	Endpoints TenantEndpoints `json:"endpoints"`
}

func (s *Server) tenantBody(r *tenancy.TenantRecord) Tenant {
	host := r.ID + "." + s.cfg.Domain
	url := func(scheme string, port int, path string) string {
		if port == 0 {
			return ""
		}
		return scheme + "://" + host + ":" + strconv.Itoa(port) + path
	}
	e := s.cfg.Endpoints
	return Tenant{
		ID: r.ID, Region: r.Region, Plan: r.Plan, State: r.State, Hostname: host,
		Endpoints: TenantEndpoints{
			MQTT: url("mqtt", e.MQTT, ""), MQTTS: url("mqtts", e.MQTTS, ""),
			WS: url("ws", e.WS, "/mqtt"), WSS: url("wss", e.WSS, "/mqtt"),
		},
	}
}

type signUpInput struct {
	Post
	Body SignUpRequest
}

// SignUpPending is the answer to a sign-up whose e-mail address is verified
// first.
type SignUpPending struct {
	Organization OrganizationRef `json:"organization"`
	Tenant       TenantRef       `json:"tenant"`
	Verification Verification    `json:"verification"`
}

// TenantRef names a tenant.
type TenantRef struct {
	ID string `json:"id" example:"acme"`
}

// Verification says what a sign-up waits for.
type Verification struct {
	Email     string    `json:"email" doc:"Where the code was sent." example:"ops@acme.example"`
	ExpiresAt time.Time `json:"expires_at" doc:"When the code ends."`
}

// VerifyRequest is the body of POST /v1/signup/verify.
type VerifyRequest struct {
	Code tenancy.Secret `json:"code" doc:"What the mail says." example:"mv_…"`
}

type (
	signUpOutput struct {
		Status int
		Body   any // SignUpAnswer or SignUpPending
	}
	verifyInput struct {
		Post
		Body VerifyRequest
	}
	verifyOutput struct {
		Status int
		Body   SignUpAnswer
	}
)

func (s *Server) signUpRoutes() {
	op := operation("sign-up", http.MethodPost, "/v1/signup", "Sign-up", "Make an organization with an owner, a tenant, an API key and a credential")
	op.Security = nil
	describeDryRun(s, &op, SignUpAnswer{})
	describeAnswer(s, &op, "201", "All is made.", SignUpAnswer{})
	describeAnswer(s, &op, "202", "Nothing is made yet: a code was sent to the e-mail address, and /v1/signup/verify makes all.", SignUpPending{})
	register(s, op, s.signUp)
}

func (s *Server) verificationRoutes() {
	op := operation("verify-sign-up", http.MethodPost, "/v1/signup/verify", "Sign-up", "Finish a sign-up with the code that was sent")
	op.Security = nil
	describeDryRun(s, &op, SignUpAnswer{})
	register(s, op, s.verifySignUp)
}

// checkSignUp checks what can be checked without the store, and fills in the
// defaults.
func (s *Server) checkSignUp(in *SignUpRequest) error {
	in.Organization = strings.TrimSpace(in.Organization)
	if in.Region == "" {
		in.Region = s.store.Region()
	}
	if in.Plan == "" {
		in.Plan = s.cfg.DefaultPlan
	}
	if err := tenancy.ValidTenantID(in.Tenant); err != nil {
		return err
	}
	if err := tenancy.ValidOrganization(in.Organization); err != nil {
		return err
	}
	if err := tenancy.ValidEmail(in.Email); err != nil {
		return err
	}
	if err := tenancy.ValidAccountPassword(string(in.Password), in.Email); err != nil {
		return err
	}
	if in.Region != s.store.Region() {
		return errs.Coded(errs.Invalid, "region_unknown", "expected the region %q, found %q", s.store.Region(), in.Region)
	}
	return s.mayChoose(in.Plan)
}

func (s *Server) signUp(ctx context.Context, in *signUpInput) (*signUpOutput, error) {
	b := in.Body
	if err := s.checkSignUp(&b); err != nil {
		return nil, err
	}
	// Before anything is looked for: also a refusal tells something.
	if err := s.limiters.signUp(s.now(), b.Email); err != nil {
		return nil, err
	}
	// Before anything is hashed: this is the common refusal.
	if err := s.store.CheckTenantFree(ctx, b.Tenant); err != nil {
		return nil, err
	}
	if in.DryRun {
		unchanged(ctx)
		return &signUpOutput{Status: http.StatusOK, Body: SignUpAnswer{
			Organization: OrganizationRef{Name: b.Organization},
			Tenant:       s.tenantBody(&tenancy.TenantRecord{ID: b.Tenant, Region: b.Region, Plan: b.Plan, State: tenancy.StateActive}),
			Credential:   NewCredential{Username: defaultUsername, UsernamePlain: b.Tenant + ":" + defaultUsername},
		}}, nil
	}
	hash, err := s.cfg.Hasher.Hash(ctx, callerOf(ctx).address, string(b.Password))
	if err != nil {
		return nil, err
	}
	u := store.Unverified{Organization: b.Organization, Email: b.Email, PasswordHash: hash, Tenant: b.Tenant, Plan: b.Plan}
	if s.cfg.Mailer != nil {
		return s.sendCode(ctx, u)
	}
	answer, err := s.makeSignUp(ctx, &u)
	if err != nil {
		return nil, err
	}
	return &signUpOutput{Status: http.StatusCreated, Body: *answer}, nil
}

// wantedBy is a sign-up as the installation's policy sees it.
func wantedBy(u *store.Unverified) map[string]string {
	return map[string]string{"organization": u.Organization, "email": u.Email, "tenant": u.Tenant, "plan": u.Plan}
}

// sendCode has a sign-up wait for its code.
func (s *Server) sendCode(ctx context.Context, u store.Unverified) (*signUpOutput, error) {
	c := changeOf(ctx)
	c.wanted = wantedBy(&u)
	if err := c.admit(ctx, callerOf(ctx).actor, "", u.Tenant, "organization with tenant "+u.Tenant, nil); err != nil {
		return nil, err
	}
	unchanged(ctx)
	code, expires, err := s.store.KeepUnverified(ctx, u)
	if err != nil {
		return nil, err
	}
	if err := s.cfg.Mailer.Send(ctx, verificationMail(u.Email, u.Tenant, code)); err != nil {
		_ = s.store.ForgetUnverified(ctx, code) // else it ends by itself
		return nil, errs.Coded(errs.Unavailable, "mail_unavailable", "the code could not be sent; try again: %w", err)
	}
	s.log.Info("code of a sign-up sent", "tenant", u.Tenant)
	return &signUpOutput{Status: http.StatusAccepted, Body: SignUpPending{
		Organization: OrganizationRef{Name: u.Organization}, Tenant: TenantRef{ID: u.Tenant},
		Verification: Verification{Email: u.Email, ExpiresAt: expires},
	}}, nil
}

func (s *Server) verifySignUp(ctx context.Context, in *verifyInput) (*verifyOutput, error) {
	if err := s.limiters.signUp(s.now(), ""); err != nil {
		return nil, err
	}
	u, err := s.store.Unverified(ctx, string(in.Body.Code))
	if err != nil {
		return nil, err
	}
	if err := s.store.CheckTenantFree(ctx, u.Tenant); err != nil {
		return nil, err
	}
	if in.DryRun {
		unchanged(ctx)
		return &verifyOutput{Status: http.StatusOK, Body: SignUpAnswer{
			Organization: OrganizationRef{Name: u.Organization},
			Tenant:       s.tenantBody(&tenancy.TenantRecord{ID: u.Tenant, Region: s.store.Region(), Plan: u.Plan, State: tenancy.StateActive}),
			Credential:   NewCredential{Username: defaultUsername, UsernamePlain: u.Tenant + ":" + defaultUsername},
		}}, nil
	}
	answer, err := s.makeSignUp(ctx, u)
	if err != nil {
		return nil, err
	}
	// Only now: a code whose sign-up failed for a moment can be used again, and
	// twice it makes nothing twice, since the tenant is there.
	if err := s.store.ForgetUnverified(ctx, string(in.Body.Code)); err != nil {
		s.log.Warn("code of a sign-up not removed", "tenant", u.Tenant, "error", err)
	}
	return &verifyOutput{Status: http.StatusCreated, Body: *answer}, nil
}

func (s *Server) makeSignUp(ctx context.Context, u *store.Unverified) (*SignUpAnswer, error) {
	secret, hash, err := password.Generate()
	if err != nil {
		return nil, err
	}
	keys, err := scram.Derive(secret, scram.IterationsGenerated)
	if err != nil {
		return nil, err
	}
	organization := store.NewOrganizationID()
	changeOf(ctx).wanted = wantedBy(u)
	if err := change(ctx, organization, u.Tenant, "organization with tenant "+u.Tenant, nil); err != nil {
		return nil, err
	}
	made, err := s.store.SignUp(ctx, store.SignUp{
		ID: organization, Organization: u.Organization, Email: u.Email, PasswordHash: u.PasswordHash, Tenant: u.Tenant, Plan: u.Plan,
		Username: defaultUsername, CredentialHash: hash, CredentialSCRAM: keys,
	})
	if err != nil {
		return nil, err
	}
	s.log.Info("tenant signed up", "tenant", u.Tenant, "organization", made.Organization.ID, "plan", u.Plan)
	answer := &SignUpAnswer{
		Organization: OrganizationRef{ID: made.Organization.ID, Name: made.Organization.Name},
		Tenant:       s.tenantBody(made.Tenant),
		APIKey:       NewAPIKey{ID: made.APIKey.ID, Secret: tenancy.Secret(made.Secret)},
		Credential: NewCredential{
			Username: defaultUsername, UsernamePlain: u.Tenant + ":" + defaultUsername, Password: tenancy.Secret(secret),
		},
	}
	return answer, changed(ctx, nil, answer)
}
