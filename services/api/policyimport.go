// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"

	"github.com/manormq/manor/tenancy/files"
)

// PolicyImport is the body of POST …/policies:import.
type PolicyImport struct {
	Format      string `json:"format" enum:"vmq_acl" doc:"What the file is: vmq_acl is that of VerneMQ's plugin."`
	Text        string `json:"text" doc:"The whole file." minLength:"1" maxLength:"1000000" example:"topic read news/#"`
	Description string `json:"description,omitempty" maxLength:"256"`
	OnRevoke    string `json:"on_revoke,omitempty" enum:"unsubscribe,disconnect" doc:"Left out it stays as it was; at first it is unsubscribe."`
	Shadow      bool   `json:"shadow,omitempty" doc:"Do not make it live, but look at what it would decide beside the live one: see policies:shadow."`
}

// PolicyImported is the answer to POST …/policies:import.
type PolicyImported struct {
	PolicyMade
	Files map[string]string `json:"files" doc:"What was made of the file, to be read and edited."`
	Notes []files.Note      `json:"notes" doc:"Lines that mean something else here, or nothing. None of them allows more."`
}

type (
	importPolicyInput struct {
		InTenant
		Change
		Body PolicyImport
	}
	policyImportedOutput struct {
		ETag string `header:"ETag"`
		Body PolicyImported
	}
)

// importedName is the file of a policy that was imported.
const importedName = "policy.rego"

func (s *Server) importPolicy(ctx context.Context, in *importPolicyInput) (*policyImportedOutput, error) {
	t := tenantOf(ctx)
	acl, err := files.PolicyOfACL(in.Body.Text, t.ID)
	if err != nil {
		return nil, err
	}
	made := PolicyImported{Files: map[string]string{importedName: acl.Rego}, Notes: append([]files.Note{}, acl.Notes...)}
	out, err := s.putPolicy(ctx, &putPolicyInput{InTenant: in.InTenant, Change: in.Change, Body: PolicyRequest{
		PolicyFiles: PolicyFiles{made.Files}, Description: in.Body.Description, OnRevoke: in.Body.OnRevoke, Shadow: in.Body.Shadow,
	}})
	if err != nil {
		return nil, err
	}
	made.PolicyMade = out.Body
	return &policyImportedOutput{out.ETag, made}, nil
}
