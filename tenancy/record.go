// SPDX-License-Identifier: Apache-2.0

package tenancy

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"strings"
	"time"

	"github.com/manormq/manor/infra/errs"
)

// Names of the buckets that gateways read, beside TicketsBucket; the others are tenancy/store's own
// business. Keys and values of these two are a contract between versions.
const (
	// TenantsBucket maps a tenant id to a TenantRecord in JSON.
	TenantsBucket = "tenants"
	// CredentialsBucket maps a CredentialKey to a Credential in JSON.
	CredentialsBucket = "credentials"
)

// TenantRecord is a tenant as it is stored. It is a plain value.
type TenantRecord struct {
	ID           string    `json:"id"`
	Organization string    `json:"organization"`
	Region       string    `json:"region"`
	Plan         string    `json:"plan"`
	State        State     `json:"state"`
	CreatedAt    time.Time `json:"created_at"`
	// Overrides are limits that replace the plan's, by quota name.
	Overrides map[string]int64 `json:"overrides,omitempty"`
	// Effective are limits that the installation's policy quota.limits has set, over the
	// plan's and the overrides, by quota name.
	Effective map[string]int64 `json:"effective,omitempty"`
	// Held says that quota.limits could not be followed at the last change: Effective are
	// all limits, as they were before.
	Held bool `json:"held,omitempty"`
	// Settings are those that differ from the defaults.
	Settings *SettingsOverride `json:"settings,omitempty"`
	// ClientCAs are its own CAs of client certificates, or nil.
	ClientCAs *ClientCAs `json:"client_cas,omitempty"`
	// Policy is what there is of its own policy, or nil.
	Policy *PolicyRef `json:"policy,omitempty"`
	// AuthMethods are those that it has chosen; empty is the default.
	AuthMethods []string `json:"auth_methods,omitempty"`
	// Issuers are those whose tokens it takes.
	Issuers []Issuer `json:"issuers,omitempty"`
	// Registry says that it has, or had, devices in its registry.
	Registry bool `json:"registry,omitempty"`
	// AllowList is from where it may be reached; nil is from everywhere.
	AllowList *AllowList `json:"allow_list,omitempty"`
	// Flapping is when a client is banned that connects again and again.
	Flapping *Flapping `json:"flapping,omitempty"`
	// APIKey is the key that is being made with the tenant, while the state is
	// reserved.
	APIKey string `json:"api_key,omitempty"`
	// Request names the sign-up, if that has an Idempotency-Key, while the state is
	// reserved.
	Request string `json:"request,omitempty"`
	// Partitions is the plan's when the tenant was made; 0, as of tenants from before
	// there was that, is all. It never changes: sessions are where it says.
	Partitions int `json:"partitions,omitempty"`
	// DisplayName is its name for people; empty is none.
	DisplayName string `json:"display_name,omitempty"`
	// DeletionProtection refuses to delete it.
	DeletionProtection bool `json:"deletion_protection,omitempty"`
	// Life is what there is to say of State, or nil.
	Life *Life `json:"life,omitempty"`
	// Revision is the bucket's; it is not part of the value.
	Revision uint64 `json:"-"`
}

// Limits are those in force: Base, with what the installation's policy says over it.
func (r *TenantRecord) Limits() (Limits, error) {
	l, err := r.Base()
	if err != nil {
		return l, err
	}
	return l.known(r.Effective), nil
}

// Base are the plan's limits with the overrides over them. An override that
// this version does not know is left out: a newer one wrote it.
func (r *TenantRecord) Base() (Limits, error) {
	plan, err := PlanByName(r.Plan)
	if err != nil {
		return Limits{}, err
	}
	return plan.Limits.known(r.Overrides), nil
}

// Tenant makes of the record what the other floors see. Its hostname is below
// domain.
func (r *TenantRecord) Tenant(domain string) (*Tenant, error) {
	limits, err := r.Limits()
	if err != nil {
		return nil, err
	}
	var networks Networks
	if r.AllowList != nil {
		networks = ParseNetworks(r.AllowList.MQTT)
	}
	reason := ""
	if r.Life != nil {
		reason = r.Life.Reason
	}
	return &Tenant{
		ID:           r.ID,
		Organization: r.Organization,
		Region:       r.Region,
		Plan:         r.Plan,
		Partitions:   r.Partitions,
		State:        r.State,
		Reason:       reason,
		Hostname:     r.ID + "." + domain,
		Limits:       limits,
		Settings:     r.Settings,
		ClientCAs:    r.ClientCAs,
		Policy:       r.Policy,
		AuthMethods:  r.AuthMethods,
		Issuers:      r.Issuers,
		Networks:     networks,
		Flapping:     r.Flapping,
		Registry:     r.Registry,
		Grant:        DefaultGrant(),
		Revision:     r.Revision,
		CreatedAt:    r.CreatedAt,
	}, nil
}

// Grows is to how many partitions the cell of the tenant grows, as its plan has more than it
// was made with: all are MaxPartitions, and 0 is that it grows no more by its plan. A cell
// never shrinks, so a plan with fewer says nothing.
func (r *TenantRecord) Grows() int {
	plan, err := PlanByName(r.Plan)
	switch {
	case err != nil, r.Partitions == 0, r.State != StateActive && r.State != StateSuspended: // the plan of a newer version
		return 0
	case plan.Partitions == 0:
		return MaxPartitions
	case plan.Partitions > r.Partitions:
		return plan.Partitions
	}
	return 0
}

// Clone returns a record that shares nothing with r.
func (r *TenantRecord) Clone() *TenantRecord {
	c := *r
	c.Overrides, c.Effective = maps.Clone(r.Overrides), maps.Clone(r.Effective)
	return &c
}

// DecodeTenant reads the value of a key in TenantsBucket.
func DecodeTenant(value []byte, revision uint64) (*TenantRecord, error) {
	r := &TenantRecord{Revision: revision}
	if err := json.Unmarshal(value, r); err != nil {
		return nil, errs.New(errs.Internal, "stored tenant: %w", err)
	}
	return r, nil
}

// Credential is a name and a hashed password with which a device connects. It
// is a plain value.
type Credential struct {
	ID       string `json:"id"`
	Tenant   string `json:"tenant"`
	Username string `json:"username"`
	// Hash is $sha256$…, $argon2id$… or bcrypt's; see tenancy/authn/password.
	Hash string `json:"hash"`
	// SCRAM is what enhanced authentication checks against, or nil.
	SCRAM *SCRAM `json:"scram,omitempty"`
	// Session is what holds for its sessions, over the tenant's, or nil.
	Session *SessionOverride `json:"session,omitempty"`
	// SessionGeneration grows with each change of Session.
	SessionGeneration int `json:"session_generation,omitempty"`
	// Generation is 1 at first and grows with each change of the password.
	Generation int       `json:"generation"`
	CreatedAt  time.Time `json:"created_at"`
	// Source is the kind of the file that it came from and goes with, such as
	// SourcePasswd; empty for one that was made by the API.
	Source string `json:"source,omitempty"`
	// Request names the request that made it, if that has an Idempotency-Key.
	Request string `json:"request,omitempty"`
	// Revision is the bucket's; it is not part of the value.
	Revision uint64 `json:"-"`
}

// Kinds of files of other brokers that a tenant's credentials and policy may come from.
const (
	SourcePasswd = "vmq_passwd"
	SourceACL    = "vmq_acl"
)

// SCRAM is a password as SCRAM-SHA-256 keeps it (RFC 5802 §3, RFC 7677): who has
// it can check the password, and no more. It is a plain value.
type SCRAM struct {
	Salt       []byte `json:"salt"`
	Iterations int    `json:"iterations"`
	StoredKey  []byte `json:"stored_key"`
	ServerKey  []byte `json:"server_key"`
}

// DecodeCredential reads the value of a key in CredentialsBucket.
func DecodeCredential(value []byte, revision uint64) (Credential, error) {
	c := Credential{Revision: revision}
	if err := json.Unmarshal(value, &c); err != nil {
		return c, errs.New(errs.Internal, "stored credential: %w", err)
	}
	return c, nil
}

// CredentialPrefix is what the keys of a tenant's credentials begin with.
func CredentialPrefix(tenant string) string { return tenant + "." }

// CredentialKey is the key of a credential: tenant id, a dot, and the name in
// base64url without padding.
func CredentialKey(tenant, username string) string {
	return CredentialPrefix(tenant) + base64.RawURLEncoding.EncodeToString([]byte(username))
}

// ParseCredentialKey is the reverse of CredentialKey.
func ParseCredentialKey(key string) (tenant, username string, ok bool) {
	tenant, name, ok := strings.Cut(key, ".")
	if !ok {
		return "", "", false
	}
	b, err := base64.RawURLEncoding.DecodeString(name)
	return tenant, string(b), err == nil
}
