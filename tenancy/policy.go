// SPDX-License-Identifier: Apache-2.0

package tenancy

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/manormq/manor/infra/errs"
)

// DefaultClass is the class of all clients under a policy without mqtt.connect.
const DefaultClass = "default"

// What becomes of a connection whose session holds subscriptions that a new
// revision does not grant: they are taken away in any case.
const (
	// OnRevokeUnsubscribe lets the connection go on.
	OnRevokeUnsubscribe = "unsubscribe"
	// OnRevokeDisconnect ends it with 0x87.
	OnRevokeDisconnect = "disconnect"
)

// PolicyRef is what a tenant's record says of its own policy. It is a plain value;
// nobody changes the slice.
type PolicyRef struct {
	// Revision is the live one; 0 is none: the default grant holds.
	Revision uint64 `json:"revision,omitempty"`
	// Newest is the newest one that was made, live or not.
	Newest uint64 `json:"newest"`
	// Shadow is the one that is looked at beside the live one, or 0.
	Shadow uint64 `json:"shadow,omitempty"`
	// Connect says that the live one has mqtt.connect.
	Connect bool `json:"connect,omitempty"`
	// Dynamic says that mqtt.check of the live one is asked about what grants allow.
	Dynamic bool `json:"dynamic,omitempty"`
	// Classes are those of the live one.
	Classes []string `json:"classes,omitempty"`
	// OnRevoke is OnRevokeUnsubscribe or OnRevokeDisconnect.
	OnRevoke string `json:"on_revoke,omitempty"`
}

// Live is the revision that holds; 0 if there is none.
func (p *PolicyRef) Live() uint64 {
	if p == nil {
		return 0
	}
	return p.Revision
}

// Grant is the Revision of the grants of a tenant whose policy is p.
func (p *PolicyRef) Grant() uint64 { return GrantRevision(p.Live()) }

// GrantRevision is the Revision of the grants of a revision of a policy.
func GrantRevision(policy uint64) uint64 { return policy + defaultRevision }

// GrantsBucket maps a GrantsKey to Grants in JSON. Gateways read it; its keys and
// values are a contract between versions.
const GrantsBucket = "grants"

// Grants are the entries of one class of one revision of a policy.
type Grants struct {
	Entries []GrantEntry `json:"entries"`
	// UserEntries are those that allow something to one user name. They are apart
	// because a gateway that does not know GrantEntry.User would have them allow it to
	// everybody; so it does not see them. An entry that denies is safe among Entries.
	UserEntries []GrantEntry `json:"user_entries,omitempty"`
}

// NewGrants returns the entries as they are stored.
func NewGrants(entries []GrantEntry) Grants {
	g := Grants{Entries: []GrantEntry{}}
	for _, e := range entries {
		if e.User != nil && !e.Deny() {
			g.UserEntries = append(g.UserEntries, e)
		} else {
			g.Entries = append(g.Entries, e)
		}
	}
	return g
}

// All are all entries.
func (g *Grants) All() []GrantEntry {
	if len(g.UserEntries) == 0 {
		return g.Entries
	}
	return slices.Concat(g.Entries, g.UserEntries)
}

// GrantsPrefix is what the keys of the grants of a revision begin with.
func GrantsPrefix(tenant string, revision uint64) string {
	return fmt.Sprintf("%s.%d.", tenant, revision)
}

// GrantsKey is the key of the grants of a class.
func GrantsKey(tenant string, revision uint64, class string) string {
	return GrantsPrefix(tenant, revision) + base64.RawURLEncoding.EncodeToString([]byte(class))
}

// DecodeGrants reads the value of a key in GrantsBucket.
func DecodeGrants(value []byte, revision uint64, class string) (*GrantSet, error) {
	var g Grants
	if err := json.Unmarshal(value, &g); err != nil {
		return nil, errs.New(errs.Internal, "stored grants: %w", err)
	}
	return NewGrantSet(GrantRevision(revision), class, g.All())
}

// Arrival is a client that wants in, as a tenant's mqtt.connect sees it. It is a
// plain value.
type Arrival struct {
	Client Subject `json:"client"`
	// IP is the client's address.
	IP         string `json:"ip"`
	Protocol   string `json:"protocol"` // 3.1, 3.1.1 or 5
	Listener   string `json:"listener"`
	Hostname   string `json:"hostname"` // of the tenant
	CleanStart bool   `json:"clean_start"`
	KeepAlive  int    `json:"keep_alive"`
	// Will is the topic of the will, or empty.
	Will string `json:"will,omitempty"`
}

// ConnectSubject is where a tenancyd answers a ConnectQuestion with a
// ConnectAnswer, both in JSON.
const ConnectSubject = "policy.connect"

// ConnectQuestion asks what a tenant's mqtt.connect says of a client.
type ConnectQuestion struct {
	Tenant   string  `json:"tenant"`
	Revision uint64  `json:"revision"`
	Arrival  Arrival `json:"arrival"`
}

// ConnectAnswer is what mqtt.connect says. A policy that fails says no.
type ConnectAnswer struct {
	Allow bool   `json:"allow"`
	Class string `json:"class,omitempty"`
	// Reason is what the client is told, Why what the log is.
	Reason string `json:"reason,omitempty"`
	Why    string `json:"why,omitempty"`
}

// DecisionsSubject is where gateways tell of Decisions, in JSON: all that deny, as
// far as Decisions.Missed does not count them, and some that allow.
const DecisionsSubject = "policy.decisions"

// Decision is one answer that a gateway has given under a tenant's own policy. It is
// a plain value.
type Decision struct {
	ID       string    `json:"id"`
	At       time.Time `json:"at"`
	Revision uint64    `json:"revision"`
	Class    string    `json:"class"`
	Client   Subject   `json:"client"`
	Question
	Allowed bool `json:"allowed"`
}

// Decisions are those of one tenant at one gateway, since the last ones.
type Decisions struct {
	Tenant string     `json:"tenant"`
	Items  []Decision `json:"items"`
	Missed int        `json:"missed,omitempty"`
}
