// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy/audit"
)

// AuditRecord is a change.
type AuditRecord struct {
	N         uint64      `json:"n" doc:"Counts the records of the organization from 1."`
	ID        string      `json:"id"`
	At        time.Time   `json:"at" doc:"When the change was begun."`
	Actor     audit.Actor `json:"actor" doc:"Who made it."`
	Address   string      `json:"address" doc:"The IP address that it came from." example:"192.0.2.1"`
	Method    string      `json:"method" example:"PUT"`
	Operation string      `json:"operation" doc:"The operationId." example:"replace-quota-overrides"`
	Tenant    string      `json:"tenant,omitempty" doc:"The id of the tenant, if it is of one."`
	Target    string      `json:"target" doc:"What was changed." example:"credential sensor-1"`
	Outcome   string      `json:"outcome" enum:"done,unknown,denied" doc:"denied: the installation's policy has refused it, for what after says. unknown: it was begun, and a process or the bus failed before it was known to be made."`
	Before    any         `json:"before,omitempty" doc:"What was there; secrets are redacted, and what is long is told by its length and SHA-256."`
	After     any         `json:"after,omitempty" doc:"What was there then."`
	Previous  string      `json:"previous" doc:"The hash of the record before."`
	Hash      string      `json:"hash" doc:"SHA-256 of this record, in hexadecimal."`
}

// AuditPage is a page of records.
type AuditPage struct {
	Items []AuditRecord `json:"items"`
	Next  *string       `json:"next" doc:"The cursor of the next page; null at the end. A page may be short where a filter leaves out many."`
}

// AuditCheck says whether the log is whole.
type AuditCheck struct {
	Valid   bool   `json:"valid" doc:"Whether every record is what its hash says and follows the one before, and none is missing."`
	Problem string `json:"problem,omitempty" doc:"What is wrong."`
	First   uint64 `json:"first" doc:"The oldest record that is kept, 0 if there is none."`
	Last    uint64 `json:"last" doc:"The newest record of those that are right."`
	Head    string `json:"head" doc:"Its hash: keep it elsewhere, and the log cannot be written anew without being noticed."`
}

type (
	listAuditInput struct {
		InOrganization
		Paged
		From      time.Time `query:"from" doc:"Leave out what is earlier."`
		To        time.Time `query:"to" doc:"Leave out what is later."`
		Actor     string    `query:"actor" doc:"The id of a key or member; all if left out."`
		Tenant    string    `query:"tenant" doc:"The id of a tenant; all if left out."`
		Operation string    `query:"operation" doc:"An operationId; all if left out."`
	}
	listAuditOutput   struct{ Body AuditPage }
	verifyAuditOutput struct{ Body AuditCheck }
)

func (s *Server) auditRoutes() {
	const base, tag = inOrganizations + "/audit", "Audit"
	register(s, operation("list-audit", http.MethodGet, base, tag, "List changes, the newest first"), s.listAudit)
	op := operation("export-audit", http.MethodGet, base+":export", tag, "Export every record that is kept, the oldest first, one in JSON a line")
	op.Responses = map[string]*huma.Response{"200": {
		Description: "The records; if the answer breaks off, it was not whole.",
		Content:     map[string]*huma.MediaType{ndjson: {Schema: &huma.Schema{Type: huma.TypeString}}},
	}}
	register(s, op, s.exportAudit)
	register(s, operation("verify-audit", http.MethodGet, base+":verify", tag, "Check the hash chain of the records that are kept"), s.verifyAudit)
}

const ndjson = "application/x-ndjson"

func auditBody(r *audit.Record) (AuditRecord, error) {
	out := AuditRecord{
		N: r.N, ID: r.ID, At: r.At, Actor: r.Actor, Address: r.Address, Method: r.Method, Operation: r.Operation, Tenant: r.Tenant,
		Target: r.Target, Outcome: r.Outcome, Previous: r.Previous, Hash: r.Hash,
	}
	var err error
	if out.Before, err = decoded(r.Before); err == nil {
		out.After, err = decoded(r.After)
	}
	return out, err
}

// decoded reads JSON with its numbers as they are written.
func decoded(raw json.RawMessage) (v any, err error) {
	if len(raw) == 0 {
		return nil, nil
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return nil, errs.New(errs.Internal, "stored audit record: %w", err)
	}
	return v, nil
}

func (s *Server) listAudit(ctx context.Context, in *listAuditInput) (*listAuditOutput, error) {
	q := audit.Query{From: in.From, To: in.To, Actor: in.Actor, Tenant: in.Tenant, Operation: in.Operation}
	if !in.From.IsZero() && !in.To.IsZero() && in.To.Before(in.From) {
		return nil, errs.Coded(errs.Invalid, "range_invalid", "expected from to be before to")
	}
	after, err := readCursor(in.Cursor)
	if err != nil {
		return nil, err
	}
	if after != "" {
		if q.Before, err = strconv.ParseUint(after, 10, 64); err != nil {
			return nil, errs.Coded(errs.Invalid, "cursor_invalid", "expected the next of an earlier page as cursor")
		}
	}
	page, next, err := s.cfg.Audit.List(ctx, in.Organization, q, in.Limit)
	if err != nil {
		return nil, err
	}
	out := &listAuditOutput{Body: AuditPage{Items: []AuditRecord{}}}
	if next != 0 {
		out.Body.Next = writeCursor(strconv.FormatUint(next, 10))
	}
	for i := range page {
		r, err := auditBody(&page[i])
		if err != nil {
			return nil, err
		}
		out.Body.Items = append(out.Body.Items, r)
	}
	return out, nil
}

// exportFlush is how much time is between two writes of an export to the
// caller, and exportStall how long one may take.
const (
	exportFlush = time.Second
	exportStall = 30 * time.Second
)

func (s *Server) exportAudit(_ context.Context, in *organizationInput) (*huma.StreamResponse, error) {
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		hc.SetHeader("Content-Type", ndjson)
		hc.SetHeader("Content-Disposition", `attachment; filename="audit-`+in.Organization+`.ndjson"`)
		r, w := humachi.Unwrap(hc)
		rc := http.NewResponseController(w)
		_ = rc.SetWriteDeadline(s.now().Add(exportStall)) // not everywhere
		flushed := s.now()
		err := s.cfg.Audit.Each(r.Context(), in.Organization, func(rec audit.Record) error {
			b, err := json.Marshal(rec)
			if err != nil {
				return err
			}
			if _, err := w.Write(append(b, '\n')); err != nil {
				return err
			}
			if now := s.now(); now.Sub(flushed) >= exportFlush {
				flushed = now
				_ = rc.SetWriteDeadline(now.Add(exportStall))
				return rc.Flush()
			}
			return nil
		})
		if err != nil {
			s.log.Error("audit log not exported whole", "organization", in.Organization, "error", err)
			panic(http.ErrAbortHandler) // an end without a mark would look whole
		}
	}}, nil
}

func (s *Server) verifyAudit(ctx context.Context, in *organizationInput) (*verifyAuditOutput, error) {
	c, err := s.cfg.Audit.Verify(ctx, in.Organization)
	out := &verifyAuditOutput{Body: AuditCheck{Valid: err == nil, First: c.First, Last: c.Last, Head: c.Head}}
	if err != nil {
		if errs.CodeOf(err) != "audit_broken" {
			return nil, err
		}
		s.log.Error("audit log is broken", "organization", in.Organization, "error", err)
		out.Body.Problem = err.Error()
	}
	return out, nil
}
