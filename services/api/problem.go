// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/policy"
)

// Problem is an RFC 9457 problem document.
type Problem struct {
	Type   string `json:"type" doc:"urn:manor:problem: and the code." example:"urn:manor:problem:tenant_taken"`
	Title  string `json:"title" doc:"The status in words." example:"Conflict"`
	Status int    `json:"status" doc:"The HTTP status." example:"409"`
	Detail string `json:"detail" doc:"What is wrong and what was expected."`
	Code   string `json:"code" doc:"A word for programs." example:"tenant_taken"`

	Quota      string `json:"quota,omitempty" doc:"The quota that was hit."`
	Limit      *int64 `json:"limit,omitempty" doc:"Its limit."`
	Usage      *int64 `json:"usage,omitempty" doc:"How much of it is used."`
	RetryAfter int64  `json:"retry_after,omitempty" doc:"Seconds after which the request may succeed."`

	Errors     []ProblemDetail `json:"errors,omitempty" doc:"What is wrong, one by one; the first 20."`
	MoreErrors int             `json:"more_errors,omitempty" doc:"How many more there are."`
}

// ProblemDetail is one thing that is wrong with a request.
type ProblemDetail struct {
	Location string `json:"location" doc:"Where." example:"body.tenant"`
	Message  string `json:"message" doc:"What was expected."`
}

// quotedMax is how many bytes of what somebody sent are quoted to them.
const quotedMax = 200

// shorten is text for a quotation.
func shorten(text string) string { return cut(text, quotedMax) }

func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

// Bounds on what a problem says, which would be as long as what was sent otherwise.
const (
	errorsMax = 20
	detailMax = 2000
)

// add adds one thing that is wrong, or counts it.
func (p *Problem) add(location, message string) {
	if len(p.Errors) == errorsMax {
		p.MoreErrors++
		return
	}
	p.Errors = append(p.Errors, ProblemDetail{Location: shorten(location), Message: cut(message, detailMax)})
}

func newProblem(status int, code, detail string) *Problem {
	return &Problem{Type: "urn:manor:problem:" + code, Title: http.StatusText(status), Status: status, Detail: cut(detail, detailMax), Code: code}
}

// Error makes a Problem an error.
func (p *Problem) Error() string { return p.Detail }

// GetStatus makes a Problem a huma.StatusError.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType makes huma write it as what it is.
func (p *Problem) ContentType(string) string { return problemType }

const problemType = "application/problem+json"

// GetHeaders makes a Problem a huma.HeadersError.
func (p *Problem) GetHeaders() http.Header {
	h := http.Header{}
	if p.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="manor"`)
	}
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(p.RetryAfter, 10))
	}
	return h
}

// problemOf maps an error to what the caller is told: the one table from kinds
// to HTTP.
func problemOf(err error) *Problem {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	if f, ok := errors.AsType[*policy.FaultsError](err); ok {
		p := newProblem(http.StatusBadRequest, "policy_invalid", err.Error())
		for _, x := range f.Faults {
			p.add(fmt.Sprintf("%s:%d:%d", x.File, x.Line, x.Column), x.Message)
		}
		return p
	}
	code := errs.CodeOf(err)
	or := func(fallback string) string {
		if code == "" {
			return fallback
		}
		return code
	}
	switch errs.KindOf(err) {
	case errs.Invalid:
		return newProblem(http.StatusBadRequest, or("request_invalid"), err.Error())
	case errs.Denied:
		return newProblem(http.StatusForbidden, or("forbidden"), err.Error())
	case errs.NotFound:
		return newProblem(http.StatusNotFound, or("not_found"), err.Error())
	case errs.Conflict:
		if code == "revision_mismatch" {
			return newProblem(http.StatusPreconditionFailed, code, err.Error())
		}
		return newProblem(http.StatusConflict, or("conflict"), err.Error())
	case errs.Quota:
		return quotaProblem(err)
	case errs.Unavailable:
		p := newProblem(http.StatusServiceUnavailable, or("unavailable"), err.Error())
		p.RetryAfter = 1
		return p
	case errs.Internal:
	}
	// What went wrong inside is for the log.
	return newProblem(http.StatusInternalServerError, "internal", "something went wrong here; it was logged")
}

func quotaProblem(err error) *Problem {
	p := newProblem(http.StatusConflict, "quota_exceeded", err.Error())
	var e *tenancy.ExceededError
	if !errors.As(err, &e) {
		return p
	}
	p.Quota, p.Limit, p.Usage, p.RetryAfter = e.Quota, &e.Limit, &e.Usage, e.RetryAfter
	if e.RetryAfter > 0 { // a rate: waiting helps
		p.Status = http.StatusTooManyRequests
		p.Title = http.StatusText(p.Status)
	}
	return p
}

// convert is a huma.Transformer that turns huma's own errors into Problems.
func convert(_ huma.Context, _ string, v any) (any, error) {
	e, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	p := newProblem(ownStatus(e.Status), "request_invalid", e.Detail)
	switch p.Status {
	case http.StatusNotAcceptable:
		p = newProblem(p.Status, "not_acceptable", "the API answers in JSON only")
	case http.StatusRequestEntityTooLarge:
		p = newProblem(p.Status, "body_too_large", e.Detail)
	case http.StatusUnsupportedMediaType:
		p = newProblem(p.Status, "media_type_unsupported", "expected Content-Type: application/json")
	case http.StatusInternalServerError:
		p = newProblem(p.Status, "internal", "something went wrong here; it was logged")
	case http.StatusRequestTimeout:
		p = newProblem(p.Status, "timeout", "the request did not come whole in time")
	}
	if len(e.Errors) == 1 && strings.Contains(e.Errors[0].Message, huma.ErrUnknownContentType.Error()) {
		return newProblem(http.StatusUnsupportedMediaType, "media_type_unsupported", "expected Content-Type: application/json"), nil
	}
	for _, d := range e.Errors {
		// The value stays out: it may be a password.
		p.add(d.Location, d.Message)
	}
	if len(p.Errors) > 0 {
		p.Detail = p.Errors[0].Location + ": " + p.Errors[0].Message
	}
	return p, nil
}

// ownStatus is the status that we give where huma has another one: what does
// not fit the schema is a bad request here.
func ownStatus(status int) int {
	if status == http.StatusUnprocessableEntity {
		return http.StatusBadRequest
	}
	return status
}

// statusWriter writes our status where huma has another one, and remembers it.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = ownStatus(status)
	w.ResponseWriter.WriteHeader(w.status)
}

// Unwrap is for http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func writeProblem(w http.ResponseWriter, p *Problem) {
	maps.Copy(w.Header(), p.GetHeaders())
	w.Header().Set("Content-Type", problemType)
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the client is gone if this fails
}
