// SPDX-License-Identifier: Apache-2.0

package client

import "time"

// Page is a page of a list.
type Page[T any] struct {
	Items []T `json:"items"`
	// Next is the cursor of the next page, nil at the end.
	Next *string `json:"next,omitempty"`
}

// Access is what a key or a member may do: a role or permissions.
type Access struct {
	Role        string   `json:"role,omitempty"`
	Permissions []string `json:"permissions,omitempty"`
	// Tenants are the ids of those to which it is limited; empty is no limit.
	Tenants []string `json:"tenants,omitempty"`
}

// Me is who calls.
type Me struct {
	Organization string `json:"organization"`
	Kind         string `json:"kind"` // key or member
	ID           string `json:"id"`
	Email        string `json:"email,omitempty"`
	Access
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
}

// OrganizationRef names an organization.
type OrganizationRef struct {
	ID   string `json:"id,omitempty"`
	Name string `json:"name"`
}

// Organization is an organization.
type Organization struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Email     string    `json:"email"`
	CreatedAt time.Time `json:"created_at"`
}

// OrganizationUpdate changes what is not nil.
type OrganizationUpdate struct {
	Name  *string `json:"name,omitempty"`
	Email *string `json:"email,omitempty"`
}

// Role is a built-in role.
type Role struct {
	Name        string   `json:"name"`
	Permissions []string `json:"permissions"`
}

// Member is a person in an organization.
type Member struct {
	ID        string    `json:"id"`
	Email     string    `json:"email"`
	Role      string    `json:"role"`
	Tenants   []string  `json:"tenants,omitempty"`
	State     string    `json:"state"` // invited or active
	InvitedBy string    `json:"invited_by,omitempty"`
	CreatedAt time.Time `json:"created_at"`
}

// Invite asks for a member.
type Invite struct {
	Email string `json:"email"`
	MemberAccess
}

// MemberAccess is what a member may do.
type MemberAccess struct {
	Role    string   `json:"role"`
	Tenants []string `json:"tenants,omitempty"`
}

// InvitedMember is a member with the invitation, which is empty where it was
// mailed.
type InvitedMember struct {
	Member
	Invitation string `json:"invitation,omitempty"`
}

// Accept accepts an invitation.
type Accept struct {
	Invitation string `json:"invitation"`
	Password   string `json:"password"`
}

// Accepted is the answer to it.
type Accepted struct {
	Organization OrganizationRef `json:"organization"`
	Member       Member          `json:"member"`
}

// SignIn asks for a token.
type SignIn struct {
	Organization string `json:"organization"`
	Email        string `json:"email"`
	Password     string `json:"password"`
}

// Token is a member's, for Config.Key.
type Token struct {
	Token     string    `json:"token,omitempty"`
	ExpiresAt time.Time `json:"expires_at"`
	Member    Member    `json:"member"`
}

// APIKey is an API key without its secret.
type APIKey struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	Access
	CreatedAt     time.Time  `json:"created_at"`
	CreatedBy     string     `json:"created_by,omitempty"`
	ExpiresAt     *time.Time `json:"expires_at,omitempty"`
	PreviousUntil *time.Time `json:"previous_until,omitempty"`
	LastUsedAt    *time.Time `json:"last_used_at,omitempty"` // to the minute
	LastUsedFrom  string     `json:"last_used_from,omitempty"`
}

// NewAPIKey asks for an API key.
type NewAPIKey struct {
	Name string `json:"name"`
	Access
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
}

// APIKeyUpdate changes what is not nil.
type APIKeyUpdate struct {
	Name      *string    `json:"name,omitempty"`
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
}

// Rotate asks for another secret.
type Rotate struct {
	// Overlap is for how long the old one holds too, such as 24h.
	Overlap string `json:"overlap,omitempty"`
}

// APIKeySecret is an API key with its secret, which is shown once.
type APIKeySecret struct {
	APIKey
	Secret string `json:"secret,omitempty"`
}

// Actor is who made a change.
type Actor struct {
	Kind string `json:"kind"` // key, member, sign-up, claim or operator
	ID   string `json:"id,omitempty"`
}

// AuditRecord is a change. Its hash is checked on an export, which has the bytes
// that it is of.
type AuditRecord struct {
	N         uint64    `json:"n"`
	ID        string    `json:"id"`
	At        time.Time `json:"at"`
	Actor     Actor     `json:"actor"`
	Address   string    `json:"address"`
	Method    string    `json:"method"`
	Operation string    `json:"operation"`
	Tenant    string    `json:"tenant,omitempty"`
	Target    string    `json:"target"`
	Outcome   string    `json:"outcome"` // done or unknown
	Before    any       `json:"before,omitempty"`
	After     any       `json:"after,omitempty"`
	Previous  string    `json:"previous"`
	Hash      string    `json:"hash"`
}

// AuditCheck says whether the log is whole.
type AuditCheck struct {
	Valid   bool   `json:"valid"`
	Problem string `json:"problem,omitempty"`
	First   uint64 `json:"first"`
	Last    uint64 `json:"last"`
	Head    string `json:"head"`
}

// Endpoints are the URLs at which a tenant's clients connect.
type Endpoints struct {
	MQTT  string `json:"mqtt,omitempty"`
	MQTTS string `json:"mqtts,omitempty"`
	WS    string `json:"ws,omitempty"`
	WSS   string `json:"wss,omitempty"`
}

// Tenant is a tenant as a sign-up answers it.
type Tenant struct {
	ID        string    `json:"id"`
	Region    string    `json:"region"`
	Plan      string    `json:"plan"`
	State     string    `json:"state"`
	Hostname  string    `json:"hostname"`
	Endpoints Endpoints `json:"endpoints"`
}

// NewTenant is another tenant of an organization.
type NewTenant struct {
	ID   string `json:"id"`
	Plan string `json:"plan,omitempty"` // the installation's default, if empty
}

// TenantDetail is a tenant.
type TenantDetail struct {
	Tenant
	Organization       string      `json:"organization"`
	CreatedAt          time.Time   `json:"created_at"`
	DisplayName        string      `json:"display_name,omitempty"`
	DeletionProtection bool        `json:"deletion_protection"`
	StateReason        string      `json:"state_reason,omitempty"` // why it is suspended
	StateBy            string      `json:"state_by,omitempty"`     // operator, if the installation's has suspended it
	StateSince         *time.Time  `json:"state_since,omitempty"`
	PurgeAt            *time.Time  `json:"purge_at,omitempty"` // of a deleted one
	Cell               *TenantCell `json:"cell,omitempty"`     // not in lists
}

// TenantUpdate is what can be changed of a tenant; nil stays as it is.
type TenantUpdate struct {
	DisplayName        *string `json:"display_name,omitempty"`
	DeletionProtection *bool   `json:"deletion_protection,omitempty"`
}

// TenantSuspension says why a tenant is suspended.
type TenantSuspension struct {
	Reason string `json:"reason,omitempty"`
}

// TenantPlan is another plan of a tenant.
type TenantPlan struct {
	Plan string `json:"plan"`
}

// Plan is a plan of the installation.
type Plan struct {
	Name       string           `json:"name"`
	Default    bool             `json:"default"`
	Choosable  bool             `json:"choosable"`
	Partitions int              `json:"partitions"` // 0 is all
	Quotas     map[string]int64 `json:"quotas"`     // -1 is no limit
}

// PlanList are the plans.
type PlanList struct {
	Items []Plan `json:"items"`
	// OverridesBeyondPlan says whether owners may override quotas beyond what the plan has.
	OverridesBeyondPlan bool `json:"overrides_beyond_plan"`
}

// TenantCell is how far the cell of a tenant has grown to what its plan has.
type TenantCell struct {
	Wanted int        `json:"wanted"`
	Has    int        `json:"has"`
	Waits  string     `json:"waits,omitempty"` // empty if it has grown
	Since  *time.Time `json:"since,omitempty"`
}

// Quota is one quota of a tenant.
type Quota struct {
	Name  string `json:"name"`
	Limit int64  `json:"limit"` // -1 is none
	Usage *int64 `json:"usage"` // nil where it is not counted
	// Headroom is nil without a limit, and where Usage is.
	Headroom *int64 `json:"headroom"`
	Source   string `json:"source"`
	// Override is the tenant's own limit, nil if it has none; a policy may have replaced it.
	Override *int64 `json:"override,omitempty"`
}

// QuotaList are the quotas of a tenant.
type QuotaList struct {
	Items []Quota `json:"items"`
	// Held says that the installation's policy could not be followed at the last change:
	// the limits are those of before.
	Held bool `json:"held,omitempty"`
}

// Credential is a credential in a list.
type Credential struct {
	ID        string         `json:"id"`
	Username  string         `json:"username"`
	SCRAM     bool           `json:"scram"`
	CreatedAt time.Time      `json:"created_at"`
	Source    string         `json:"source,omitempty"`
	Session   map[string]any `json:"session,omitempty"`
}

// PasswdFile is a whole file of vmq_passwd.
type PasswdFile struct {
	Text string `json:"text"`
}

// Source is what became of a file that credentials or the policy come from.
type Source struct {
	Kind      string     `json:"kind"` // vmq_passwd or vmq_acl
	AppliedAt *time.Time `json:"applied_at"`
	Users     int        `json:"users"`
	Skipped   int        `json:"skipped"`
	Revision  uint64     `json:"revision,omitempty"`
	Problem   string     `json:"problem,omitempty"`
	ProblemAt *time.Time `json:"problem_at,omitempty"`
}

// SourceList are those of a tenant.
type SourceList struct {
	Items []Source `json:"items"`
}

// NewCredential asks for a credential; without a password one is generated.
type NewCredential struct {
	Username string         `json:"username"`
	Password *string        `json:"password,omitempty"`
	SCRAM    *bool          `json:"scram,omitempty"`
	Session  map[string]any `json:"session,omitempty"`
}

// CreatedCredential has the password, if it was generated.
type CreatedCredential struct {
	ID       string `json:"id,omitempty"`
	Username string `json:"username"`
	Password string `json:"password,omitempty"`
}

// Import asks for up to 100,000 credentials.
type Import struct {
	Items []ImportItem `json:"items"`
}

// ImportItem is one of them: a hash or a password.
type ImportItem struct {
	Username string `json:"username"`
	// Hash is $argon2id$…, bcrypt's, or $sha256$… of a random password.
	Hash     string  `json:"hash,omitempty"`
	Password *string `json:"password,omitempty"`
}

// Operation is work that goes on after its request was answered.
type Operation struct {
	ID        string    `json:"id"`
	Kind      string    `json:"kind"`
	State     string    `json:"state"` // running, done or interrupted
	Total     int       `json:"total"`
	Made      int       `json:"made"`
	Skipped   int       `json:"skipped"` // there already
	Failed    int       `json:"failed"`
	Problem   string    `json:"problem,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// SignUp asks for an organization with a tenant.
type SignUp struct {
	Organization string `json:"organization"`
	Email        string `json:"email"`
	Password     string `json:"password"`
	Tenant       string `json:"tenant"`
	Region       string `json:"region,omitempty"`
	Plan         string `json:"plan,omitempty"`
}

// SignedUp is the answer to it. With Verification nothing is made yet: the code
// that was sent makes it.
type SignedUp struct {
	Organization OrganizationRef `json:"organization"`
	Tenant       Tenant          `json:"tenant"`
	APIKey       KeySecret       `json:"api_key"`
	Credential   FirstCredential `json:"credential"`
	Verification *Verification   `json:"verification,omitempty"`
}

// KeySecret is the first API key.
type KeySecret struct {
	ID     string `json:"id,omitempty"`
	Secret string `json:"secret,omitempty"`
}

// FirstCredential is the first credential.
type FirstCredential struct {
	Username      string `json:"username"`
	UsernamePlain string `json:"username_plain"`
	Password      string `json:"password,omitempty"`
}

// Verification says what a sign-up waits for.
type Verification struct {
	Email     string    `json:"email"`
	ExpiresAt time.Time `json:"expires_at"`
}

// Verify finishes a sign-up.
type Verify struct {
	Code string `json:"code"`
}
