// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"

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
	Organization string `json:"organization" doc:"The organization's name." example:"Acme"`
	Email        string `json:"email" doc:"Where its people are reached." example:"ops@acme.example"`
	Password     string `json:"password" doc:"At least 8 characters." format:"password"`
	Tenant       string `json:"tenant" doc:"The tenant's id: a lower case DNS label of 3 to 63 characters, which becomes its hostname." example:"acme"`
	Region       string `json:"region,omitempty" doc:"The only region, if left out." example:"local"`
	Plan         string `json:"plan,omitempty" doc:"The installation's default plan, if left out." example:"dev"`
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
	ID     string `json:"id,omitempty" example:"key_01j9zq5e6v8x7w0r3t2y4u6i8o"`
	Secret string `json:"secret,omitempty" doc:"Shown once." example:"mk_…"`
}

// NewCredential is the first credential with its password.
type NewCredential struct {
	Username      string `json:"username" doc:"Where the hostname names the tenant (TLS, WebSocket)." example:"default"`
	UsernamePlain string `json:"username_plain" doc:"Where nothing else names the tenant (port 1883)." example:"acme:default"`
	Password      string `json:"password,omitempty" doc:"Shown once."`
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

type signUpOutput struct {
	Status int
	Body   SignUpAnswer
}

func (s *Server) signUpRoutes() {
	op := operation("sign-up", http.MethodPost, "/v1/signup", "Sign-up", "Make an organization with a tenant, an API key and a credential")
	op.Security = nil
	register(s, op, s.signUp)
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
	if err := tenancy.ValidAccountPassword(in.Password, in.Email); err != nil {
		return err
	}
	if in.Region != s.store.Region() {
		return errs.Coded(errs.Invalid, "region_unknown", "expected the region %q, found %q", s.store.Region(), in.Region)
	}
	if plans := tenancy.PlanNames(); !slices.Contains(plans, in.Plan) {
		return errs.Coded(errs.Invalid, "plan_unknown", "expected one of the plans %s, found %q", strings.Join(plans, ", "), in.Plan)
	}
	return nil
}

func (s *Server) signUp(ctx context.Context, in *signUpInput) (*signUpOutput, error) {
	b := in.Body
	if err := s.checkSignUp(&b); err != nil {
		return nil, err
	}
	// Before anything is hashed: this is the common refusal.
	if err := s.store.CheckTenantFree(ctx, b.Tenant); err != nil {
		return nil, err
	}
	if in.DryRun {
		return &signUpOutput{Status: http.StatusOK, Body: SignUpAnswer{
			Organization: OrganizationRef{Name: b.Organization},
			Tenant:       s.tenantBody(&tenancy.TenantRecord{ID: b.Tenant, Region: b.Region, Plan: b.Plan, State: tenancy.StateActive}),
			Credential:   NewCredential{Username: defaultUsername, UsernamePlain: b.Tenant + ":" + defaultUsername},
		}}, nil
	}
	accountHash, err := s.cfg.Hasher.Hash(ctx, b.Password)
	if err != nil {
		return nil, err
	}
	secret, hash, err := password.Generate()
	if err != nil {
		return nil, err
	}
	keys, err := scram.Derive(secret, scram.IterationsGenerated)
	if err != nil {
		return nil, err
	}
	made, err := s.store.SignUp(ctx, store.SignUp{
		Organization: b.Organization, Email: b.Email, PasswordHash: accountHash, Tenant: b.Tenant, Plan: b.Plan,
		Username: defaultUsername, CredentialHash: hash, CredentialSCRAM: keys,
	})
	if err != nil {
		return nil, err
	}
	s.log.Info("tenant signed up", "tenant", b.Tenant, "organization", made.Organization.ID, "plan", b.Plan)
	return &signUpOutput{Status: http.StatusCreated, Body: SignUpAnswer{
		Organization: OrganizationRef{ID: made.Organization.ID, Name: made.Organization.Name},
		Tenant:       s.tenantBody(made.Tenant),
		APIKey:       NewAPIKey{ID: made.APIKey.ID, Secret: made.Secret},
		Credential: NewCredential{
			Username: defaultUsername, UsernamePlain: b.Tenant + ":" + defaultUsername, Password: secret,
		},
	}}, nil
}
