// SPDX-License-Identifier: Apache-2.0

package client

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// bodies are what the operations take and answer; nil is nothing that is read as
// JSON.
var bodies = map[string][2]any{
	"sign-up":           {SignUp{}, nil}, // two answers: see TestDocument
	"verify-sign-up":    {Verify{}, SignedUp{}},
	"sign-in":           {SignIn{}, Token{}},
	"sign-out":          {},
	"accept-invitation": {Accept{}, Accepted{}},
	"get-me":            {nil, Me{}},
	"list-plans":        {nil, PlanList{}},

	"get-organization":          {nil, Organization{}},
	"update-organization":       {OrganizationUpdate{}, Organization{}},
	"delete-organization":       {},
	"list-roles":                {nil, Page[Role]{}},
	"create-tenant":             {NewTenant{}, TenantDetail{}},
	"list-organization-tenants": {nil, Page[TenantDetail]{}},

	"list-members":  {nil, Page[Member]{}},
	"get-member":    {nil, Member{}},
	"invite-member": {Invite{}, InvitedMember{}},
	"update-member": {MemberAccess{}, Member{}},
	"remove-member": {},

	"list-api-keys":  {nil, Page[APIKey]{}},
	"get-api-key":    {nil, APIKey{}},
	"create-api-key": {NewAPIKey{}, APIKeySecret{}},
	"update-api-key": {APIKeyUpdate{}, APIKey{}},
	"rotate-api-key": {Rotate{}, APIKeySecret{}},
	"delete-api-key": {},

	"list-audit":   {nil, Page[AuditRecord]{}},
	"export-audit": {},
	"verify-audit": {nil, AuditCheck{}},

	"get-tenant":                 {nil, TenantDetail{}},
	"update-tenant":              {TenantUpdate{}, TenantDetail{}},
	"suspend-tenant":             {TenantSuspension{}, TenantDetail{}},
	"resume-tenant":              {nil, TenantDetail{}},
	"delete-tenant":              {},
	"restore-tenant":             {nil, TenantDetail{}},
	"purge-tenant":               {nil, TenantDetail{}},
	"replace-plan":               {TenantPlan{}, TenantDetail{}},
	"list-quotas":                {nil, QuotaList{}},
	"replace-quota-overrides":    {map[string]int64{}, QuotaList{}},
	"list-policies":              {nil, PolicyList{}},
	"get-policy":                 {nil, PolicyDetail{}},
	"put-policy":                 {NewPolicy{}, PolicyMade{}},
	"import-policy":              {PolicyImport{}, PolicyImported{}},
	"delete-policy":              {},
	"rollback-policy":            {PolicyRollback{}, PolicyRevision{}},
	"test-policy":                {PolicyFiles{}, PolicyReport{}},
	"explain-policy":             {ExplainPolicy{}, PolicyAnswer{}},
	"simulate-policy":            {SimulatePolicy{}, Simulation{}},
	"get-policy-shadow":          {nil, PolicyDiff{}},
	"delete-policy-shadow":       {},
	"list-clients":               {nil, Page[Session]{}},
	"get-client":                 {nil, Session{}},
	"delete-client":              {},
	"list-client-subscriptions":  {nil, Page[Subscription]{}},
	"get-client-queue":           {nil, Queue{}},
	"match-topic":                {nil, TopicMatch{}},
	"publish":                    {Message{}, Published{}},
	"list-retained":              {nil, Page[Retained]{}},
	"get-usage":                  {nil, Page[UsageMeter]{}},
	"list-settings":              {nil, Page[Setting]{}},
	"replace-settings":           {map[string]any{}, Page[Setting]{}},
	"list-client-cas":            {nil, OwnCAs{}},
	"replace-client-cas":         {NewOwnCAs{}, OwnCAs{}},
	"replace-credential-session": {SessionOverride{}, SessionOverride{}},
	"list-sources":               {nil, SourceList{}},
	"list-credentials":           {nil, Page[Credential]{}},
	"create-credential":          {NewCredential{}, CreatedCredential{}},
	"delete-credential":          {},
	"get-auth-methods":           {nil, AuthMethods{}},
	"replace-auth-methods":       {AuthMethods{}, AuthMethods{}},
	"list-jwt-issuers":           {nil, Page[IssuerDetail]{}},
	"replace-jwt-issuers":        {Issuers{}, Page[IssuerDetail]{}},
	"get-ip-allow-lists":         {nil, AllowLists{}},
	"replace-ip-allow-lists":     {AllowLists{}, AllowLists{}},
	"get-flapping":               {nil, Flapping{}},
	"replace-flapping":           {Flapping{}, Flapping{}},
	"get-managed-ca":             {nil, ManagedCA{}},
	"get-managed-ca-crl":         {},
	"get-tenant-metrics":         {},
	"create-managed-ca":          {nil, ManagedCA{}},
	"delete-managed-ca":          {},
	"sign-certificate":           {Sign{}, SignedCertificate{}},
	"list-claims":                {nil, Page[Claim]{}},
	"create-claim":               {NewClaim{}, CreatedClaim{}},
	"delete-claim":               {},
	"redeem-claim":               {Redeem{}, SignedCertificate{}},
	"list-devices":               {nil, Page[Device]{}},
	"get-device":                 {nil, Device{}},
	"replace-device":             {DeviceAbout{}, Device{}},
	"delete-device":              {},
	"import-devices":             {DeviceImport{}, ImportedDevices{}},
	"export-devices":             {},
	"list-groups":                {nil, Groups{}},
	"list-bans":                  {nil, Page[Ban]{}},
	"create-ban":                 {NewBan{}, Ban{}},
	"delete-ban":                 {},
	"list-domains":               {nil, Page[Domain]{}},
	"create-domain":              {NewDomain{}, Domain{}},
	"get-domain":                 {nil, Domain{}},
	"delete-domain":              {},
	"verify-domain":              {nil, Domain{}},
	"renew-domain":               {nil, Domain{}},
	"replace-domain-certificate": {Certificate{}, Domain{}},
	"replace-passwd-source":      {PasswdFile{}, Operation{}},
	"import-credentials":         {Import{}, Operation{}},
	"get-operation":              {nil, Operation{}},
	"list-events":                {nil, Page[Event]{}},
	"follow-events":              {},
	"get-client-timeline":        {nil, Page[Event]{}},
}

// optional are properties that a type of ours has and the document's need not:
// lists that have no pages, and answers that are two in one.
var optional = []string{"next", "verification"}

type object = map[string]any

// document is docs/openapi.json.
type document struct {
	t    *testing.T
	root object
}

func (d *document) resolve(schema object) object {
	for {
		ref, ok := schema["$ref"].(string)
		if !ok {
			return schema
		}
		schema = d.root["components"].(object)["schemas"].(object)[ref[strings.LastIndexByte(ref, '/')+1:]].(object)
	}
}

// compare holds a type to a schema: every property of one is one of the other.
func (d *document) compare(where string, typ reflect.Type, schema object) {
	d.t.Helper()
	schema = d.resolve(schema)
	for typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	switch typ.Kind() {
	case reflect.Slice:
		d.compare(where+"[]", typ.Elem(), schema["items"].(object))
		return
	case reflect.Struct:
		if typ.PkgPath() != reflect.TypeFor[Client]().PkgPath() {
			return // time.Time
		}
	default:
		return
	}
	properties, ok := schema["properties"].(object)
	if !ok {
		d.t.Errorf("%s: the document has no object", where)
		return
	}
	fields := map[string]reflect.Type{}
	for _, f := range reflect.VisibleFields(typ) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" {
			fields[name] = f.Type
		}
	}
	for name, field := range fields {
		p, ok := properties[name].(object)
		switch {
		case ok:
			d.compare(where+"."+name, field, p)
		case !slices.Contains(optional, name):
			d.t.Errorf("%s: the document has no property %s", where, name)
		}
	}
	for name := range properties {
		if _, ok := fields[name]; !ok && name != "$schema" {
			d.t.Errorf("%s: %v has no field for the property %s", where, typ, name)
		}
	}
}

// TestDocument holds every operation and type of this package to
// docs/openapi.json.
func TestDocument(t *testing.T) {
	b, err := os.ReadFile("../../../docs/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	d := &document{t: t}
	if err := json.Unmarshal(b, &d.root); err != nil {
		t.Fatal(err)
	}
	paths := d.root["paths"].(object)
	for _, id := range slices.Sorted(maps.Keys(operations)) {
		op := operations[id]
		known, ok := bodies[id]
		if !ok {
			t.Errorf("bodies has no row for %s", id)
		}
		item, _ := paths[op.path].(object)
		described, ok := item[strings.ToLower(op.method)].(object)
		if !ok || described["operationId"] != id {
			t.Errorf("%s: the document has no %s %s", id, op.method, op.path)
			continue
		}
		if body, ok := described["requestBody"].(object); ok != (known[0] != nil) {
			t.Errorf("%s: the document has a body: %v", id, ok)
		} else if ok {
			d.compare(id+" request", reflect.TypeOf(known[0]), body["content"].(object)["application/json"].(object)["schema"].(object))
		}
		for status, r := range described["responses"].(object) {
			content, _ := r.(object)["content"].(object)
			answer, ok := content["application/json"].(object)
			if known[1] == nil || !ok || status[0] != '2' {
				continue
			}
			d.compare(fmt.Sprint(id, " ", status), reflect.TypeOf(known[1]), answer["schema"].(object))
		}
	}
	schemas := d.root["components"].(object)["schemas"].(object)
	d.compare("Problem", reflect.TypeFor[Problem](), schemas["Problem"].(object))
	d.compare("SignUpAnswer", reflect.TypeFor[SignedUp](), schemas["SignUpAnswer"].(object))
	d.compare("Verification", reflect.TypeFor[Verification](), schemas["Verification"].(object))
}
