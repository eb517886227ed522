// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"encoding/json"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"github.com/manormq/manor/infra/errs"
)

// version is of the API's surface, not of the program.
const version = "1.0.0"

// describe is the frame of the OpenAPI document and how huma shall behave.
func describe() huma.Config {
	return huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title:       "Manor",
				Version:     version,
				Description: "The public API of Manor, a managed MQTT cloud for many tenants.",
				License:     &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"},
			},
			Components: &huma.Components{
				Schemas: huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
				SecuritySchemes: map[string]*huma.SecurityScheme{
					bearer: {Type: "http", Scheme: "bearer", Description: "An API key (mk_…), or the token of a member (mt_…). x-permission says what an operation needs of it."},
				},
			},
			Tags: []*huma.Tag{
				{Name: "Sign-up", Description: "The first request."},
				{Name: "Organizations", Description: "Who has tenants, and who calls."},
				{Name: "Members", Description: "People of an organization, and how they sign in."},
				{Name: "API keys", Description: "With what programs call, as far as each may."},
				{Name: "Audit", Description: "Who changed what."},
				{Name: "Tenants", Description: "A tenant, its quotas and its usage."},
				{Name: "Policies", Description: "What clients may do, as Rego."},
				{Name: "Credentials", Description: "With what devices connect."},
				{Name: "Clients", Description: "Sessions and their connections."},
				{Name: "Messages", Description: "Publishing and retained messages."},
			},
		},
		Formats:                      map[string]huma.Format{"application/json": huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat},
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
		Transformers:                 []huma.Transformer{convert},
	}
}

// document writes the OpenAPI document. Where huma describes its own errors it
// describes ours instead.
func document(o *huma.OpenAPI) ([]byte, error) {
	problem := o.Components.Schemas.Schema(reflect.TypeFor[Problem](), true, "Problem")
	delete(o.Components.Schemas.Map(), "ErrorModel")
	delete(o.Components.Schemas.Map(), "ErrorDetail")
	for _, path := range o.Paths {
		for _, op := range []*huma.Operation{path.Get, path.Put, path.Post, path.Patch, path.Delete} {
			if op == nil {
				continue
			}
			for status, r := range op.Responses {
				if status == "422" {
					delete(op.Responses, status)
				}
				if _, ok := r.Content[problemType]; ok {
					r.Content = map[string]*huma.MediaType{problemType: {Schema: problem}}
				}
			}
			op.Responses["default"] = &huma.Response{
				Description: "A problem (RFC 9457).",
				Content:     map[string]*huma.MediaType{problemType: {Schema: problem}},
			}
		}
	}
	b, err := json.Marshal(o)
	if err != nil {
		return nil, errs.New(errs.Internal, "OpenAPI: %w", err)
	}
	var out bytes.Buffer
	if err := json.Indent(&out, b, "", "  "); err != nil {
		return nil, errs.New(errs.Internal, "OpenAPI: %w", err)
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

// operation is a shorthand for what every operation has.
func operation(id, method, path, tag, summary string) huma.Operation {
	op := huma.Operation{OperationID: id, Method: method, Path: path, Tags: []string{tag}, Summary: summary, Security: secured()}
	switch method {
	case http.MethodPost:
		op.DefaultStatus = http.StatusCreated
	case http.MethodDelete:
		op.DefaultStatus = http.StatusNoContent
	}
	return op
}

// describeDryRun adds the answer of a dry run to a POST that makes something:
// 200, with what the body has before anything is made.
func describeDryRun(s *Server, op *huma.Operation, body any) {
	describeAnswer(s, op, "200", "What a dry run answers: nothing was made.", body)
}

// describeAnswer adds an answer to an operation.
func describeAnswer(s *Server, op *huma.Operation, status, description string, body any) {
	schema := s.api.OpenAPI().Components.Schemas.Schema(reflect.TypeOf(body), true, "")
	if op.Responses == nil {
		op.Responses = map[string]*huma.Response{}
	}
	op.Responses[status] = &huma.Response{
		Description: description,
		Content:     map[string]*huma.MediaType{"application/json": {Schema: schema}},
	}
}
