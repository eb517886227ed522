// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/json"
	"mime"
	"net"
	"net/http"

	"github.com/manormq/manor/infra/errs"
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
	mux.HandleFunc("POST "+OperatorPrefix+"/domains:release", s.releaseDomain)
	return mux
}

func (s *Server) releaseDomain(w http.ResponseWriter, r *http.Request) {
	out, err := s.release(r)
	status, body := http.StatusOK, any(out)
	if err != nil {
		p := problemOf(err)
		if p.Status == http.StatusInternalServerError {
			s.log.Error("a domain was not released", "error", err)
		}
		status, body = p.Status, p
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client is gone if this fails
}

func (s *Server) release(r *http.Request) (*Released, error) {
	// A page in an operator's browser cannot send this type to another site unasked.
	if t, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); t != "application/json" {
		return nil, errs.New(errs.Invalid, "expected the Content-Type application/json, found %q", r.Header.Get("Content-Type"))
	}
	var in ReleaseRequest
	d := json.NewDecoder(http.MaxBytesReader(nil, r.Body, 4<<10))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil || in.FQDN == "" {
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
	address, _, _ := net.SplitHostPort(r.RemoteAddr)
	p, err := s.cfg.Audit.Begin(ctx, audit.Change{
		Organization: t.Organization, Actor: audit.Actor{Kind: audit.ActorOperator}, Address: address, Method: r.Method, Operation: "release-domain",
		Tenant: tenant, Target: "domain " + fqdn,
	})
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
