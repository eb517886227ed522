// SPDX-License-Identifier: Apache-2.0

package client

import "net/http"

// operation is how an operation is called.
type operation struct{ method, path string }

const (
	inOrganization = "/v1/organizations/{organization}"
	inTenant       = "/v1/tenants/{tenant}"
)

// operations are those that this package knows, by operationId.
var operations = map[string]operation{
	"sign-up":           {http.MethodPost, "/v1/signup"},
	"verify-sign-up":    {http.MethodPost, "/v1/signup/verify"},
	"sign-in":           {http.MethodPost, "/v1/auth/token"},
	"sign-out":          {http.MethodDelete, "/v1/auth/token"},
	"accept-invitation": {http.MethodPost, "/v1/invitations:accept"},
	"get-me":            {http.MethodGet, "/v1/me"},
	"list-plans":        {http.MethodGet, "/v1/plans"},

	"get-organization":          {http.MethodGet, inOrganization},
	"update-organization":       {http.MethodPatch, inOrganization},
	"list-roles":                {http.MethodGet, inOrganization + "/roles"},
	"create-tenant":             {http.MethodPost, inOrganization + "/tenants"},
	"list-organization-tenants": {http.MethodGet, inOrganization + "/tenants"},

	"list-members":  {http.MethodGet, inOrganization + "/members"},
	"get-member":    {http.MethodGet, inOrganization + "/members/{member}"},
	"invite-member": {http.MethodPost, inOrganization + "/members"},
	"update-member": {http.MethodPatch, inOrganization + "/members/{member}"},
	"remove-member": {http.MethodDelete, inOrganization + "/members/{member}"},

	"list-api-keys":  {http.MethodGet, inOrganization + "/api-keys"},
	"get-api-key":    {http.MethodGet, inOrganization + "/api-keys/{key}"},
	"create-api-key": {http.MethodPost, inOrganization + "/api-keys"},
	"update-api-key": {http.MethodPatch, inOrganization + "/api-keys/{key}"},
	"rotate-api-key": {http.MethodPost, inOrganization + "/api-keys/{key}:rotate"},
	"delete-api-key": {http.MethodDelete, inOrganization + "/api-keys/{key}"},

	"list-audit":   {http.MethodGet, inOrganization + "/audit"},
	"export-audit": {http.MethodGet, inOrganization + "/audit:export"},
	"verify-audit": {http.MethodGet, inOrganization + "/audit:verify"},

	"get-tenant":              {http.MethodGet, inTenant},
	"list-quotas":             {http.MethodGet, inTenant + "/quotas"},
	"replace-plan":            {http.MethodPut, inTenant + "/plan"},
	"replace-quota-overrides": {http.MethodPut, inTenant + "/quotas/overrides"},
	"list-policies":           {http.MethodGet, inTenant + "/policies"},
	"get-policy":              {http.MethodGet, inTenant + "/policies/{revision}"},
	"put-policy":              {http.MethodPut, inTenant + "/policies"},
	"import-policy":           {http.MethodPost, inTenant + "/policies:import"},
	"delete-policy":           {http.MethodDelete, inTenant + "/policies"},
	"rollback-policy":         {http.MethodPost, inTenant + "/policies:rollback"},
	"test-policy":             {http.MethodPost, inTenant + "/policies:test"},
	"explain-policy":          {http.MethodPost, inTenant + "/policies:explain"},
	"simulate-policy":         {http.MethodPost, inTenant + "/policies:simulate"},
	"get-policy-shadow":       {http.MethodGet, inTenant + "/policies:shadow"},
	"delete-policy-shadow":    {http.MethodDelete, inTenant + "/policies:shadow"},
	"replace-passwd-source":   {http.MethodPut, inTenant + "/sources/vmq_passwd"},
	"list-sources":            {http.MethodGet, inTenant + "/sources"},
	"list-credentials":        {http.MethodGet, inTenant + "/credentials"},
	"create-credential":       {http.MethodPost, inTenant + "/credentials"},
	"delete-credential":       {http.MethodDelete, inTenant + "/credentials/{username}"},
	"get-auth-methods":        {http.MethodGet, inTenant + "/auth-methods"},
	"replace-auth-methods":    {http.MethodPut, inTenant + "/auth-methods"},
	"list-jwt-issuers":        {http.MethodGet, inTenant + "/jwt-issuers"},
	"replace-jwt-issuers":     {http.MethodPut, inTenant + "/jwt-issuers"},
	"get-ip-allow-lists":      {http.MethodGet, inTenant + "/ip-allow-lists"},
	"replace-ip-allow-lists":  {http.MethodPut, inTenant + "/ip-allow-lists"},
	"get-flapping":            {http.MethodGet, inTenant + "/flapping"},
	"replace-flapping":        {http.MethodPut, inTenant + "/flapping"},
	"get-managed-ca":          {http.MethodGet, inTenant + "/managed-ca"},
	"get-managed-ca-crl":      {http.MethodGet, inTenant + "/managed-ca/crl"},
	"create-managed-ca":       {http.MethodPost, inTenant + "/managed-ca"},
	"delete-managed-ca":       {http.MethodDelete, inTenant + "/managed-ca"},
	"sign-certificate":        {http.MethodPost, inTenant + "/certificates:sign"},
	"list-claims":             {http.MethodGet, inTenant + "/claims"},
	"create-claim":            {http.MethodPost, inTenant + "/claims"},
	"delete-claim":            {http.MethodDelete, inTenant + "/claims/{claim}"},
	"redeem-claim":            {http.MethodPost, "/v1/claims:redeem"},
	"list-devices":            {http.MethodGet, inTenant + "/devices"},
	"get-device":              {http.MethodGet, inTenant + "/devices/{device}"},
	"replace-device":          {http.MethodPut, inTenant + "/devices/{device}"},
	"delete-device":           {http.MethodDelete, inTenant + "/devices/{device}"},
	"import-devices":          {http.MethodPost, inTenant + "/devices:import"},
	"export-devices":          {http.MethodGet, inTenant + "/devices:export"},
	"list-groups":             {http.MethodGet, inTenant + "/groups"},
	"list-bans":               {http.MethodGet, inTenant + "/bans"},
	"create-ban":              {http.MethodPost, inTenant + "/bans"},
	"delete-ban":              {http.MethodDelete, inTenant + "/bans/{ban}"},
	"import-credentials":      {http.MethodPost, inTenant + "/credentials:import"},
	"get-operation":           {http.MethodGet, inTenant + "/operations/{operation}"},
	"list-events":             {http.MethodGet, inTenant + "/events"},
	"follow-events":           {http.MethodGet, inTenant + "/events:stream"},
	"get-client-timeline":     {http.MethodGet, inTenant + "/clients/{client_id}/timeline"},

	"list-clients":               {http.MethodGet, inTenant + "/clients"},
	"get-client":                 {http.MethodGet, inTenant + "/clients/{client_id}"},
	"delete-client":              {http.MethodDelete, inTenant + "/clients/{client_id}"},
	"list-client-subscriptions":  {http.MethodGet, inTenant + "/clients/{client_id}/subscriptions"},
	"get-client-queue":           {http.MethodGet, inTenant + "/clients/{client_id}/queue"},
	"match-topic":                {http.MethodGet, inTenant + "/topics:match"},
	"publish":                    {http.MethodPost, inTenant + "/publish"},
	"list-retained":              {http.MethodGet, inTenant + "/retained"},
	"get-usage":                  {http.MethodGet, inTenant + "/usage"},
	"list-settings":              {http.MethodGet, inTenant + "/settings"},
	"replace-settings":           {http.MethodPut, inTenant + "/settings"},
	"list-client-cas":            {http.MethodGet, inTenant + "/client-cas"},
	"replace-client-cas":         {http.MethodPut, inTenant + "/client-cas"},
	"replace-credential-session": {http.MethodPut, inTenant + "/credentials/{username}/session"},

	"list-domains":               {http.MethodGet, inTenant + "/domains"},
	"create-domain":              {http.MethodPost, inTenant + "/domains"},
	"get-domain":                 {http.MethodGet, inTenant + "/domains/{domain}"},
	"delete-domain":              {http.MethodDelete, inTenant + "/domains/{domain}"},
	"verify-domain":              {http.MethodPost, inTenant + "/domains/{domain}:verify"},
	"renew-domain":               {http.MethodPost, inTenant + "/domains/{domain}:renew"},
	"replace-domain-certificate": {http.MethodPut, inTenant + "/domains/{domain}/certificate"},
}
