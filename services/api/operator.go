// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/json"
	"mime"
	"net"
	"net/http"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/audit"
)

// OperatorPrefix is where Operator's handler is mounted at a tenancyd's operator listener.
const OperatorPrefix = "/tenancy/v1"

// ReleaseRequest is the body of POST /tenancy/v1/domains:release.
type ReleaseRequest struct {
	FQDN string `json:"fqdn"`
}

// Released is the answer to it.
type Released struct {
	FQDN string `json:"fqdn"`
	// Tenant is the one that had the name.
	Tenant string `json:"tenant"`
}

// Operator returns what the people who run the installation may do, for the operator
// listener: who reaches that may do it.
func (s *Server) Operator() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+OperatorPrefix+"/domains:release", operate(s, `{"fqdn":"mqtt.example.com"}`, s.release))
	mux.HandleFunc("PUT "+OperatorPrefix+"/tenants/{tenant}/plan", operate(s, `{"plan":"pro"}`, s.givePlan))
	mux.HandleFunc("POST "+OperatorPrefix+"/tenants/{tenant}/quotas", operate(s, giveLike, s.giveQuotas))
	mux.HandleFunc("POST "+OperatorPrefix+"/tenants/{tenant}/suspend", operate(s, `{"reason":"abuse"}`, s.holdTenant))
	mux.HandleFunc("POST "+OperatorPrefix+"/tenants/{tenant}/resume", operate(s, `{}`, s.freeTenant))
	return mux
}

// operate has f answer requests with a body of JSON, like that one, and writes what it answers.
func operate[I, O any](s *Server, like string, f func(*http.Request, *I) (*O, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		in := new(I)
		err := readOperator(r, like, in)
		var out *O
		if err == nil {
			out, err = f(r, in)
		}
		status, body := http.StatusOK, any(out)
		if err != nil {
			p := problemOf(err)
			if p.Status == http.StatusInternalServerError {
				s.log.Error("an operator's request failed", "path", r.URL.Path, "error", err)
			}
			status, body = p.Status, p
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(body) // the client is gone if this fails
	}
}

func readOperator(r *http.Request, like string, in any) error {
	// A page in an operator's browser cannot send this type to another site unasked.
	if t, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); t != "application/json" {
		return errs.New(errs.Invalid, "expected the Content-Type application/json, found %q", r.Header.Get("Content-Type"))
	}
	d := json.NewDecoder(http.MaxBytesReader(nil, r.Body, 16<<10))
	d.DisallowUnknownFields()
	if err := d.Decode(in); err != nil {
		return errs.New(errs.Invalid, "expected a body like %s: %w", like, err)
	}
	return nil
}

// operated is a change that an operator is about to make of a tenant.
func (s *Server) operated(r *http.Request, t *tenancy.TenantRecord, operation, target string, before any) (*audit.Pending, error) {
	address, _, _ := net.SplitHostPort(r.RemoteAddr)
	return s.cfg.Audit.Begin(r.Context(), audit.Change{
		Organization: t.Organization, Actor: audit.Actor{Kind: audit.ActorOperator}, Address: address, Method: r.Method, Operation: operation,
		Tenant: t.ID, Target: target, Before: before,
	})
}

func (s *Server) release(r *http.Request, in *ReleaseRequest) (*Released, error) {
	if in.FQDN == "" {
		return nil, errs.New(errs.Invalid, "expected a body like {\"fqdn\":\"mqtt.example.com\"}")
	}
	ctx := r.Context()
	tenant, fqdn, err := s.cfg.Domains.Holder(ctx, in.FQDN)
	if err != nil {
		return nil, err
	}
	t, err := s.store.Tenant(ctx, tenant)
	if err != nil {
		return nil, err
	}
	p, err := s.operated(r, t, "release-domain", "domain "+fqdn, nil)
	if err != nil {
		return nil, err
	}
	if err := s.cfg.Domains.Release(ctx, tenant, fqdn); err != nil {
		_ = p.Lost(ctx) // else the log finds the note
		return nil, err
	}
	out := &Released{FQDN: fqdn, Tenant: tenant}
	s.log.Info("a custom domain was released by an operator", "tenant", tenant, "domain", fqdn)
	return out, p.Done(ctx, out)
}
